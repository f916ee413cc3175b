"""A toy vocabulary and an engine over the simulated runner."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from shards.detokenizer import Vocabulary
from shards.engine import Engine
from shards.grid import Grid
from shards.request import Delta, GenerationRequest, Picture, Sampling
from shards.simulated import NextToken, SimulatedRunner, hashed
from shards.step import Drawn, PictureKey, StepPlan, nothing

UNK, EOS, TOOL_CALLS, IMG, IMG_BREAK, IMG_END = 0, 2, 5, 10, 14, 15
FIRST_LETTER = 16
LETTERS = "abcdefghijklmnopqrstuvwxyz "
VOCAB_SIZE = FIRST_LETTER + len(LETTERS)

VOCABULARY = Vocabulary(
    pieces=(*[b""] * FIRST_LETTER, *[letter.encode() for letter in LETTERS]),
    eos_id=EOS,
    control_ids=frozenset(range(FIRST_LETTER)),
    answer_ids=frozenset({EOS, TOOL_CALLS}),
    tool_calls_id=TOOL_CALLS,
    image_id=IMG,
    image_break_id=IMG_BREAK,
    image_end_id=IMG_END,
    strip_leading_space=False,
)


def ids(text: str) -> tuple[int, ...]:
    return tuple(FIRST_LETTER + LETTERS.index(letter) for letter in text)


class WatchedRunner(SimulatedRunner):
    """Keeps the plans it ran, and the keys of the pictures it was given."""

    def __init__(self, next_token: NextToken, num_blocks: int, block_size: int) -> None:
        super().__init__(
            next_token, num_blocks=num_blocks, block_size=block_size, image_token_id=IMG
        )
        self.ran: list[StepPlan] = []
        self.given: list[PictureKey] = []

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> list[Drawn]:
        self.ran.append(plan)
        return super().run(plan, meanwhile)

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        self.given.append(key)
        super().add_picture(key, features)


def simulated_engine(
    next_token: NextToken | None = None,
    *,
    num_blocks: int = 64,
    block_size: int = 4,
    max_context_tokens: int = 200,
    max_batch_sequences: int = 8,
    max_step_tokens: int = 16,
    max_waiting: int = 100,
    prefix_cache: bool = True,
    max_drafts: int = 0,
    headroom_tokens: int = 64,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Engine, WatchedRunner]:
    runner = WatchedRunner(next_token or hashed(VOCAB_SIZE), num_blocks, block_size)
    engine = Engine(
        runner,
        vocabulary=VOCABULARY,
        num_blocks=num_blocks,
        block_size=block_size,
        max_context_tokens=max_context_tokens,
        max_batch_sequences=max_batch_sequences,
        max_step_tokens=max_step_tokens,
        max_waiting=max_waiting,
        prefix_cache=prefix_cache,
        max_drafts=max_drafts,
        headroom_tokens=headroom_tokens,
        clock=clock,
    )
    return engine, runner


def text_request(name: str, prompt: str = "hello", **sampling) -> GenerationRequest:
    values = {"seed": 0, "max_tokens": 4} | sampling
    return GenerationRequest(name, ids(prompt), Sampling(**values))


def picture_request(name: str, *grids: Grid, content: str = "", **sampling) -> GenerationRequest:
    prompt: list[int] = []
    for grid in grids:
        prompt += [*ids("see"), *grid.token_ids(IMG, IMG_BREAK, IMG_END)]
    pictures = tuple(Picture(grid, content=f"{content}{index}") for index, grid in enumerate(grids))
    values = {"seed": 0, "max_tokens": 4} | sampling
    return GenerationRequest(name, (*prompt, *ids("ok")), Sampling(**values), pictures)


def drain(engine: Engine) -> list[Delta]:
    """Step until nothing is left, checking the books after each step."""
    deltas = []
    while engine.has_work:
        deltas += engine.step()
        engine.check()
    return deltas


def tokens_of(deltas: list[Delta], request_id: str, choice: int = 0) -> tuple[int, ...]:
    return tuple(
        token
        for delta in deltas
        if (delta.request_id, delta.choice) == (request_id, choice)
        for token in delta.token_ids
    )
