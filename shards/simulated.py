"""A runner that computes no model: for tests and load tests. Standard library only.

It keeps what a real KV cache would hold (the token at every slot) and draws the next token from
exactly that, so that a wrong block table, a skipped position or an overwritten block changes the
output or raises. It knows nothing of text; replies can be given as ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import nan
from typing import TYPE_CHECKING

from shards.request import TokenLogprob
from shards.step import PictureKey, SampleSpec, SequenceStep, StepPlan

if TYPE_CHECKING:
    import numpy as np

# (tokens of the sequence, how to draw) -> next token id
NextToken = Callable[[Sequence[int], SampleSpec], int]


class SimulatedRunner:
    """Draws tokens by ``next_token`` after checking each plan.

    Args:
        next_token: see ``hashed`` and ``scripted``.
        image_token_id: marks the positions that take a row of a picture's features.
        step_delay_s: what a step costs; a load test's stand-in for compute.

    ``plans`` counts the steps; ``pictures`` holds what was added and not dropped.
    """

    def __init__(
        self,
        next_token: NextToken,
        *,
        num_blocks: int,
        block_size: int,
        image_token_id: int,
        step_delay_s: float = 0.0,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.pictures: dict[PictureKey, np.ndarray] = {}
        self.plans = 0
        self.closed = False
        self._next_token = next_token
        self._image_token_id = image_token_id
        self._step_delay_s = step_delay_s
        # slot -> (position, token) last written there
        self._cache: dict[int, tuple[int, int]] = {}

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        if key in self.pictures:
            raise PlanViolationError(f"{key} is held already")
        self.pictures[key] = features

    def drop_picture(self, key: PictureKey) -> None:
        self.pictures.pop(key, None)

    def run(self, plan: StepPlan) -> list[TokenLogprob]:
        """Raises PlanViolationError; see the class."""
        if self._step_delay_s:
            time.sleep(self._step_delay_s)
        self.plans += 1
        self._check_blocks(plan)
        for step in plan.sequences:
            self._check_pictures(step)
            self._write(step)
        return [self._draw(step, step.sample) for step in plan.sequences if step.sample is not None]

    def close(self) -> None:
        self.closed = True

    def _check_blocks(self, plan: StepPlan) -> None:
        """Every block exists, tables fit, and a block that is written belongs to one sequence."""
        writers: dict[int, int] = {}
        for row, step in enumerate(plan.sequences):
            if not step.token_ids:
                raise PlanViolationError(f"sequence {row} computes nothing")
            stop = step.start + len(step.token_ids)
            needed = -(-stop // self.block_size)
            if len(step.block_table) != needed or len(set(step.block_table)) != needed:
                raise PlanViolationError(f"{stop} positions in blocks {step.block_table}")
            if not all(0 <= block < self.num_blocks for block in step.block_table):
                raise PlanViolationError(f"blocks {step.block_table} of {self.num_blocks}")
            for block in step.block_table[step.start // self.block_size :]:
                if writers.setdefault(block, row) != row:
                    raise PlanViolationError(f"block {block} is written by two sequences")
        for row, step in enumerate(plan.sequences):
            for block in step.block_table:
                if writers.get(block, row) != row:
                    raise PlanViolationError(f"block {block} is written while another reads it")

    def _check_pictures(self, step: SequenceStep) -> None:
        images = step.token_ids.count(self._image_token_id)
        rows = sum(part.stop - part.start for part in step.pictures)
        if images != rows:
            raise PlanViolationError(f"{rows} feature rows for {images} [IMG] tokens")
        for part in step.pictures:
            if part.key not in self.pictures:
                raise PlanViolationError(f"{part.key} is not held")
            if not 0 <= part.start < part.stop <= len(self.pictures[part.key]):
                raise PlanViolationError(f"{part} outside its picture")

    def _write(self, step: SequenceStep) -> None:
        for position, token in enumerate(step.token_ids, start=step.start):
            self._cache[self._slot(step, position)] = (position, token)

    def _draw(self, step: SequenceStep, sample: SampleSpec) -> TokenLogprob:
        tokens = []
        for position in range(step.start + len(step.token_ids)):
            written, token = self._cache.get(self._slot(step, position), (None, 0))
            if written != position:
                raise PlanViolationError(f"position {position} was never computed")
            tokens.append(token)
        token = self._next_token(tokens, sample)
        if sample.logprobs is None:
            return TokenLogprob(token, nan)
        return TokenLogprob(token, -1.0, tuple((token, -1.0) for _ in range(sample.logprobs))[:1])

    def _slot(self, step: SequenceStep, position: int) -> int:
        block = step.block_table[position // self.block_size]
        return block * self.block_size + position % self.block_size


def hashed(vocab_size: int) -> NextToken:
    """Tokens that depend on the whole sequence, the seed and the choice, and avoid banned ids."""

    def next_token(tokens: Sequence[int], sample: SampleSpec) -> int:
        text = f"{list(tokens)}{sample.seed}{sample.choice}".encode()
        token = int.from_bytes(blake2b(text, digest_size=8).digest(), "big") % vocab_size
        while token in sample.banned:
            token = (token + 1) % vocab_size
        return token

    return next_token


def scripted(reply: Sequence[int]) -> NextToken:
    """Says ``reply`` to everyone, again from its start when it ends."""

    def next_token(tokens: Sequence[int], sample: SampleSpec) -> int:
        del tokens
        return reply[sample.index % len(reply)]

    return next_token
