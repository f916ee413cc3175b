"""A runner that computes no model: for tests and load tests. Standard library only.

It keeps what a real KV cache would hold (the token, or the picture's row, at every slot) and draws
the next token from exactly that, so that a wrong block table, a skipped position or an overwritten
block changes the output or raises. It knows nothing of text; replies can be given as ids.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import nan
from typing import TYPE_CHECKING

from shards.batch import Batch, PlanViolationError, SequenceState, Work
from shards.request import TokenLogprob
from shards.step import Drawn, PictureKey, SampleSpec, StepPlan, nothing

if TYPE_CHECKING:
    import numpy as np

# (tokens of the sequence, how to draw) -> next token id. A picture's row is a negative number.
NextToken = Callable[[Sequence[int], SampleSpec], int]


class SimulatedRunner:
    """Draws tokens by ``next_token`` after checking each plan.

    Args:
        next_token: see ``hashed`` and ``scripted``.
        image_token_id: marks the positions that take a row of a picture's features.
        step_delay_s: what a step costs; a load test's stand-in for compute.

    ``plans`` counts the steps, ``computed`` the tokens, drafts included; ``pictures`` holds what
    was added and not dropped.
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
        self.computed = 0
        self.closed = False
        self._next_token = next_token
        self._image_token_id = image_token_id
        self._step_delay_s = step_delay_s
        self._batch = Batch(image_token_id)
        # slot -> (position, token, what was embedded there) last written
        self._cache: dict[int, tuple[int, int, int]] = {}

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        if key in self.pictures:
            raise PlanViolationError(f"{key} is held already")
        self.pictures[key] = features

    def drop_picture(self, key: PictureKey) -> None:
        self.pictures.pop(key, None)

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> list[Drawn]:
        """Raises PlanViolationError; see the class."""
        works = self._batch.apply(plan)
        begun = {begin.row for begin in plan.begun}
        for state in self._batch:
            self._check_table(state)
            if state.row in begun:
                self._read(state, state.computed)
        self._check_writers(works)
        meanwhile()
        if self._step_delay_s:
            time.sleep(self._step_delay_s)
        self.plans += 1
        for work in works:
            self._write(work)
        return self._batch.accept(works, [one for work in works for one in self._draws(work)])

    def close(self) -> None:
        self.closed = True

    def _check_table(self, state: SequenceState) -> None:
        table = state.block_table
        if len(set(table)) != len(table):
            raise PlanViolationError(f"row {state.row} has a block twice: {table}")
        if not all(0 <= block < self.num_blocks for block in table):
            raise PlanViolationError(f"row {state.row} has blocks {table} of {self.num_blocks}")

    def _check_writers(self, works: Sequence[Work]) -> None:
        """Tables reach far enough, and a block that is written is in one table only."""
        holders: dict[int, list[int]] = {}
        for state in self._batch:
            for block in state.block_table:
                holders.setdefault(block, []).append(state.row)
        for work in works:
            stop, table = work.start + work.count, work.block_table
            if stop > len(table) * self.block_size:
                raise PlanViolationError(f"row {work.row}: {stop} positions in blocks {table}")
            for block in table[work.start // self.block_size : -(-stop // self.block_size)]:
                if len(holders[block]) > 1:
                    raise PlanViolationError(
                        f"row {work.row} writes block {block}, which rows {holders[block]} hold"
                    )

    def _write(self, work: Work) -> None:
        self.computed += work.count
        rows = iter(self._rows(work))
        for position, token in enumerate(work.token_ids, start=work.start):
            embedded = next(rows) if token == self._image_token_id else token
            self._cache[self._slot(work.block_table, position)] = (position, token, embedded)

    def _rows(self, work: Work) -> list[int]:
        """What stands for each feature row that a sequence takes in."""
        rows: list[int] = []
        for part in work.pictures:
            if part.key not in self.pictures:
                raise PlanViolationError(f"{part.key} is not held")
            features = self.pictures[part.key]
            if not 0 <= part.start < part.stop <= len(features):
                raise PlanViolationError(f"{part} outside its picture")
            taken = features[part.start : part.stop]
            rows += [-1 - _number(row.tobytes()) for row in taken]
        images = work.token_ids.count(self._image_token_id)
        if images != len(rows):
            raise PlanViolationError(f"{len(rows)} feature rows for {images} [IMG] tokens")
        return rows

    def _draws(self, work: Work) -> list[TokenLogprob]:
        """After each of the last tokens, from what the cache holds up to it."""
        if not work.samples:
            return []
        drafts = len(work.drafts)
        known = self._read(work.sequence, work.start + work.count - drafts)
        places = range(work.start + work.count - drafts, work.start + work.count)
        drafted = [self._cache[self._slot(work.block_table, place)][2] for place in places]
        return [
            self._draw([*known, *drafted[:count]], sample)
            for count, sample in enumerate(work.samples)
        ]

    def _read(self, state: SequenceState, stop: int) -> list[int]:
        """What was embedded at positions [0, stop), which must be this sequence's tokens."""
        seen = []
        for position in range(stop):
            slot = self._slot(state.block_table, position)
            written, token, embedded = self._cache.get(slot, (None, 0, 0))
            if written != position:
                raise PlanViolationError(f"row {state.row}: position {position} was never computed")
            if token != state.token_ids[position]:
                raise PlanViolationError(f"row {state.row}: position {position} is another's")
            seen.append(embedded)
        return seen

    def _draw(self, tokens: Sequence[int], sample: SampleSpec) -> TokenLogprob:
        token = self._next_token(tokens, sample)
        if sample.draws.logprobs is None:
            return TokenLogprob(token, nan)
        return TokenLogprob(
            token, -1.0, tuple((token, -1.0) for _ in range(sample.draws.logprobs))[:1]
        )

    def _slot(self, table: Sequence[int], position: int) -> int:
        block, offset = divmod(position, self.block_size)
        if block >= len(table):
            raise PlanViolationError(f"position {position} is beyond blocks {list(table)}")
        return table[block] * self.block_size + offset


def allows(mask: bytes, token_id: int) -> bool:
    """Whether a grammar's mask (see ``SampleSpec``) lets a token be drawn."""
    return not mask or bool(mask[token_id // 8] >> token_id % 8 & 1)


def hashed(vocab_size: int) -> NextToken:
    """Tokens that depend on the whole sequence, the seed and the choice, and avoid banned ids."""

    def next_token(tokens: Sequence[int], sample: SampleSpec) -> int:
        token = (
            _number(f"{list(tokens)}{sample.draws.seed}{sample.draws.choice}".encode()) % vocab_size
        )
        while token in sample.banned or not allows(sample.mask, token):
            token = (token + 1) % vocab_size
        return token

    return next_token


def scripted(reply: Sequence[int]) -> NextToken:
    """Says ``reply`` to everyone, again from its start when it ends."""

    def next_token(tokens: Sequence[int], sample: SampleSpec) -> int:
        del tokens
        return reply[sample.index % len(reply)]

    return next_token


def _number(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
