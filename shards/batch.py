"""The running sequences as every rank mirrors them. Standard library only.

All ranks apply the same plans and accept the same draws, so their mirrors stay the same without
being sent. A step is ``apply`` → compute → ``accept``:

    known tokens   p p p p p o        p prompt, o drawn; 4 computed
    drafts                     d d    appended for this step
    computed now           . . . .    count 4: rows for positions 4 .. 7
    draws                    x x x    after the last known token and after each draft
    accepted                 o x      the first draft was drawn, the second was not: 2 tokens
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shards.request import TokenLogprob
from shards.step import Advance, Begin, Drawn, Draws, PictureRows, PictureSpan, SampleSpec, StepPlan


class PlanViolationError(RuntimeError):
    """A plan breaks a rule that every runner relies on: a bug of ours, never a caller's fault."""


class SequenceState:
    """One row of the batch.

    Attributes:
        token_ids: known tokens, without drafts.
        computed: positions [0, computed) are in the KV cache.
        block_table: ids of the blocks that hold them, and perhaps positions to come.
        drawn: how many of ``token_ids`` were drawn.
    """

    def __init__(self, begin: Begin, image_token_id: int) -> None:
        if not begin.computed < len(begin.token_ids):
            raise PlanViolationError(
                f"row {begin.row} begins with {begin.computed} of {len(begin.token_ids)} computed"
            )
        self.row = begin.row
        self.token_ids = list(begin.token_ids)
        self.computed = begin.computed
        self.block_table = list(begin.block_table)
        self.draws: Draws = begin.draws
        self.drawn = begin.drawn
        self.pictures: tuple[PictureSpan, ...] = begin.pictures
        self._image_token_id = image_token_id
        # [IMG] ids among the computed tokens: the patches that are in the cache already.
        self._patches = (
            self.token_ids[: self.computed].count(image_token_id) if self.pictures else 0
        )
        self._counts: Counter[int] = Counter()
        if self.draws.penalised and self.drawn:
            self._counts.update(self.token_ids[-self.drawn :])

    @property
    def missing(self) -> int:
        """Known tokens that are not computed."""
        return len(self.token_ids) - self.computed

    def work(self, advance: Advance | None) -> Work | None:
        """What it computes in a step; None for nothing."""
        if advance is None:
            if self.missing != 1:
                return None
            advance = Advance(self.row, 1)
        self.block_table += advance.blocks
        if advance.count == 0:
            return None
        tokens = [*self.token_ids[self.computed : self.computed + advance.count], *advance.drafts]
        draws = advance.count == self.missing + len(advance.drafts)
        if len(tokens) != advance.count or (advance.drafts and not draws):
            raise PlanViolationError(
                f"row {self.row} misses {self.missing} tokens, has {len(advance.drafts)} drafts "
                f"and is told to compute {advance.count}"
            )
        if advance.masks and len(advance.masks) != 1 + len(advance.drafts):
            raise PlanViolationError(f"row {self.row} has {len(advance.masks)} masks for its draws")
        # A draft that is a placeholder shows no picture; it is banned, so it is not drawn either.
        rows = self._picture_rows(tokens[: self.missing]) if self.pictures else ()
        samples = self._samples(advance) if draws else ()
        return Work(self, self.computed, tuple(tokens), advance.drafts, rows, samples)

    def accept(self, work: Work, drawn: Sequence[TokenLogprob]) -> tuple[TokenLogprob, ...]:
        """Take in what was drawn after the last known token and after each draft.

        Returns:
            the tokens that count: the accepted drafts and one more; none where none was drawn.
        """
        if self.pictures:
            self._patches += sum(rows.stop - rows.start for rows in work.pictures)
        if not work.samples:
            self.computed += work.count
            return ()
        accepted = 0
        while accepted < len(work.drafts) and drawn[accepted].token_id == work.drafts[accepted]:
            accepted += 1
        tokens = tuple(drawn[: accepted + 1])
        # The last token drawn is known now and not yet computed.
        self.computed = len(self.token_ids) + accepted
        self.token_ids += [token.token_id for token in tokens]
        self.drawn += len(tokens)
        if self.draws.penalised:
            self._counts.update(token.token_id for token in tokens)
        return tokens

    def _picture_rows(self, tokens: Sequence[int]) -> tuple[PictureRows, ...]:
        first = self._patches
        last = first + tokens.count(self._image_token_id)
        rows, offset = [], 0
        for span in self.pictures:
            low, high = max(first - offset, 0), min(last - offset, span.patches)
            if low < high:
                rows.append(PictureRows(span.key, low, high))
            offset += span.patches
        return tuple(rows)

    def _samples(self, advance: Advance) -> tuple[SampleSpec, ...]:
        samples = []
        counts = self._counts.copy() if advance.drafts and self.draws.penalised else self._counts
        for place in range(1 + len(advance.drafts)):
            if place and self.draws.penalised:
                counts[advance.drafts[place - 1]] += 1
            mask = advance.masks[place] if advance.masks else b""
            index = self.drawn + place
            samples.append(SampleSpec(self.draws, index, tuple(counts.items()), mask))
        return tuple(samples)


@dataclass(frozen=True, slots=True)
class Work:
    """What one sequence computes in a step.

    Attributes:
        start: position of the first token.
        token_ids: at least one; drafts are the last of them.
        pictures: feature rows for the [IMG] ids among them, in order.
        samples: one for each draw, at the last ``len(samples)`` tokens; none while more of what is
            known stays uncomputed.
    """

    sequence: SequenceState
    start: int
    token_ids: tuple[int, ...]
    drafts: tuple[int, ...] = ()
    pictures: tuple[PictureRows, ...] = ()
    samples: tuple[SampleSpec, ...] = ()

    @property
    def row(self) -> int:
        return self.sequence.row

    @property
    def count(self) -> int:
        return len(self.token_ids)

    @property
    def block_table(self) -> list[int]:
        """Blocks of the whole sequence; it may hold more than the step reaches."""
        return self.sequence.block_table


class Batch:
    """The live rows, in the order in which they began."""

    def __init__(self, image_token_id: int) -> None:
        self._image_token_id = image_token_id
        self._rows: dict[int, SequenceState] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[SequenceState]:
        return iter(self._rows.values())

    def apply(self, plan: StepPlan) -> list[Work]:
        """Take in a plan; what is to be computed, in the batch's order.

        Raises:
            PlanViolationError: the plan does not fit the batch.
        """
        for row in plan.ended:
            if self._rows.pop(row, None) is None:
                raise PlanViolationError(f"row {row} ends, but is not live")
        for begin in plan.begun:
            if begin.row in self._rows:
                raise PlanViolationError(f"row {begin.row} begins, but is live")
            self._rows[begin.row] = SequenceState(begin, self._image_token_id)
        advances = {advance.row: advance for advance in plan.advances}
        if len(advances) != len(plan.advances) or not advances.keys() <= self._rows.keys():
            raise PlanViolationError("a plan advances a row twice, or one that is not live")
        works = (state.work(advances.get(row)) for row, state in self._rows.items())
        return [work for work in works if work is not None]

    def accept(self, works: Sequence[Work], drawn: Sequence[TokenLogprob]) -> list[Drawn]:
        """Take in the draws of ``works``, one per sample and in their order.

        Returns:
            for each row that drew, the tokens that count.
        """
        counted, offset = [], 0
        for work in works:
            stop = offset + len(work.samples)
            tokens = work.sequence.accept(work, drawn[offset:stop])
            offset = stop
            if tokens:
                counted.append(Drawn(work.row, tokens))
        return counted
