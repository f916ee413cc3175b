"""The regression net: what the bundled model answers about fixed pictures is the same however it
is computed: cut over ranks, prefilled in chunks, with and without the prefix cache, in a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from PIL import Image as Pillow

from ops import nano
from ops.eval.command import BUNDLED_SET
from ops.eval.question_set import GradedQuestion, read_set
from shards.comm import Communicator
from shards.conversation import Conversation, Image, Message, Text
from shards.engine import Engine
from shards.lockstep import Leader, follow
from shards.pixels import content_hash, patches, upright_rgb
from shards.request import GenerationRequest, Picture, Sampling
from shards.runner import ModelRunner
from shards.tokenizer import Tokenizer
from shards.vision_model import VisionEncoder
from tests.multirank.ranks import on_ranks
from tests.shards.engine_fixtures import drain, tokens_of

pytestmark = pytest.mark.multirank
CPU = torch.device("cpu")
BLOCK_SIZE = 16
QUESTIONS = 16


@dataclass(frozen=True, slots=True)
class Way:
    """How to compute."""

    together: bool = False
    step_tokens: int = 512
    prefix_cache: bool = True
    rounds: int = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.ensure(tmp_path_factory.mktemp("models") / "nano")


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[str]:
    """One rank, one question after the other, every prompt in one step."""
    (texts,) = on_ranks(1, answers, folder, Way(prefix_cache=False))
    return texts


def chosen() -> list[GradedQuestion]:
    """Of every task, so many that a batch of 16 is full."""
    questions = [each for each in read_set(BUNDLED_SET) if not each.before]
    by_task: dict[str, list[GradedQuestion]] = {}
    for question in questions:
        by_task.setdefault(question.task, []).append(question)
    turns = max(map(len, by_task.values()))
    in_turn = [group[turn] for turn in range(turns) for group in by_task.values() if group[turn:]]
    return in_turn[:QUESTIONS]


def answers(comm: Communicator, folder: Path, way: Way) -> list[str]:
    """Greedy answers to the chosen questions, of the last round; empty on other ranks."""
    torch.set_num_threads(1)
    runner = ModelRunner.load(
        folder, comm, device=CPU, dtype="float32", block_size=BLOCK_SIZE, kv_cache_bytes=2**24
    )
    if comm.rank > 0:
        follow(runner, comm)
        return []
    leader = Leader(runner, comm)
    tokenizer = Tokenizer.from_folder(folder)
    engine = Engine(
        leader,
        vocabulary=tokenizer.vocabulary,
        num_blocks=runner.num_blocks,
        block_size=BLOCK_SIZE,
        max_context_tokens=1024,
        max_batch_sequences=QUESTIONS,
        max_step_tokens=way.step_tokens,
        max_waiting=QUESTIONS,
        prefix_cache=way.prefix_cache,
    )
    encoder = VisionEncoder.load(folder, device=CPU, dtype="float32")
    asked = [request_of(question, tokenizer, encoder) for question in chosen()]
    texts: list[str] = []
    for turn in range(way.rounds):
        texts = played(engine, tokenizer, asked, turn, together=way.together)
    leader.close()
    return texts


def played(engine, tokenizer, asked, turn, *, together: bool) -> list[str]:
    """Everything asked once; ids tell the rounds apart."""
    texts = []
    groups = [asked] if together else [[each] for each in asked]
    for group in groups:
        named = [(replace(request, request_id=f"{request.request_id}-{turn}"), rows)
                 for request, rows in group]  # fmt: skip
        for request, rows in named:
            engine.add(request, rows)
        deltas = drain(engine)
        texts += [spelled(tokenizer, tokens_of(deltas, request.request_id)) for request, _ in named]
    return texts


def spelled(tokenizer: Tokenizer, tokens: tuple[int, ...]) -> str:
    return b"".join(tokenizer.vocabulary.pieces[token] for token in tokens).decode(
        errors="backslashreplace"
    )


def request_of(question: GradedQuestion, tokenizer: Tokenizer, encoder: VisionEncoder):
    shown = [upright_rgb(Pillow.open(image)) for image in question.images]
    content: list[Image | Text] = [Image(index) for index in range(len(shown))]
    content.append(Text(question.question))
    conversation = Conversation((Message("user", tuple(content)),))
    prompt = tokenizer.encode(conversation, [picture.size for picture in shown])
    made = [patches(shown[index]) for index in prompt.picture_order]
    features = [encoder.encode(values, [grid]).numpy() for grid, values in made]
    pictures = tuple(Picture(grid, content_hash(grid, values)) for grid, values in made)
    name = f"{question.task}-{question.question}-{len(question.images)}"
    sampling = Sampling(seed=0, max_tokens=32, temperature=0.0)
    return GenerationRequest(name, prompt.token_ids, sampling, pictures), features


@pytest.mark.parametrize(
    ("ranks", "way"),
    [
        pytest.param(2, Way(), id="tp 2"),
        pytest.param(4, Way(), id="tp 4"),
        pytest.param(1, Way(step_tokens=32), id="chunked"),
        pytest.param(1, Way(rounds=2), id="prefix cache, second time"),
        pytest.param(1, Way(together=True, prefix_cache=False), id="batch of 16"),
        pytest.param(2, Way(together=True, step_tokens=64, rounds=2), id="all at once"),
    ],
)
def test_answers_do_not_depend_on_how_they_are_computed(folder, expected, ranks, way):
    assert on_ranks(ranks, answers, folder, way)[0] == expected


def test_the_net_can_catch_something(folder, expected):
    """Its answers differ from one another, and most of them are right."""
    questions = chosen()
    assert len(questions) == len(expected) == QUESTIONS
    assert len(set(expected)) > QUESTIONS // 2
