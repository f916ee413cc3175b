"""Drives a ModelRunner through prompts by hand: chunks, decode steps, drafts, scattered blocks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from shards.batch import SequenceState, Work
from shards.request import TokenLogprob
from shards.runner import ModelRunner
from shards.step import Advance, Begin, Draws, PictureKey, PictureSpan, StepPlan
from tests.shards.prompts import IMAGE_ID, Prompt

# As the engine does: no answer may hold a picture's placeholder.
GREEDY = Draws(seed=0, choice=0, temperature=0, banned=(IMAGE_ID,))


class DrivenSequence:
    """One prompt on its way through a runner.

    Args:
        features: [patches of all its pictures, vision hidden], None without pictures.
        blocks: ids that it may use, in any order; enough for prompt and answer.
        draws: how its tokens are drawn by ``ModelRunner.run``.

    Attributes:
        tokens: all that are known; may be added to before the first step.
    """

    def __init__(
        self,
        runner: ModelRunner,
        name: str,
        prompt: Prompt,
        features: np.ndarray | None,
        blocks: list[int],
        draws: Draws = GREEDY,
    ) -> None:
        self.state: SequenceState | None = None
        self._runner = runner
        self._tokens = list(prompt.token_ids)
        self._draws = draws
        self._blocks = tuple(blocks)
        self._pictures = tuple(
            PictureSpan(PictureKey(name, index), grid.patches)
            for index, grid in enumerate(prompt.grids)
        )
        first = 0
        for picture in self._pictures:
            assert features is not None
            runner.add_picture(picture.key, features[first : first + picture.patches])
            first += picture.patches

    @property
    def tokens(self) -> list[int]:
        return self._tokens if self.state is None else self.state.token_ids

    @property
    def missing(self) -> int:
        return len(self._tokens) if self.state is None else self.state.missing

    def begin(self) -> Begin:
        """In the row after the highest that is live."""
        row = 1 + max((state.row for state in self._runner.batch), default=-1)
        return Begin(
            row, tuple(self._tokens), 0, self._blocks, self._draws, pictures=self._pictures
        )

    def advance(self, row: int, count: int | None = None, drafts: Sequence[int] = ()) -> Advance:
        """Compute the next ``count`` tokens (None: all that are known) and the drafts."""
        known = self.missing if count is None else count
        return Advance(row, known + len(drafts), drafts=tuple(drafts))


# A sequence and how many of its tokens a step computes; None for all that are known.
Part = tuple[DrivenSequence, int | None]


def plan_of(
    runner: ModelRunner,
    parts: Sequence[Part],
    drafts: Sequence[Sequence[int]] | None = None,
) -> StepPlan:
    """A plan that computes these parts and nothing else of what is live."""
    begun: list[Begin] = []
    advances: list[Advance] = []
    for (sequence, count), guesses in zip(parts, drafts or [()] * len(parts), strict=True):
        if sequence.state is None:
            begin = sequence.begin()
            begun.append(replace(begin, row=begin.row + len(begun)))
            row = begun[-1].row
        else:
            row = sequence.state.row
        advances.append(sequence.advance(row, count, guesses))
    computed = {advance.row for advance in advances}
    idle = [Advance(state.row, 0) for state in runner.batch if state.row not in computed]
    return StepPlan(begun=tuple(begun), advances=(*advances, *idle))


def adopt(runner: ModelRunner, plan: StepPlan, parts: Sequence[Part]) -> None:
    """Tell sequences which state is theirs, once the runner has taken the plan in."""
    states = {state.row: state for state in runner.batch}
    for (sequence, _), advance in zip(parts, plan.advances, strict=False):
        sequence.state = states[advance.row]


def forward(runner: ModelRunner, *parts: Part) -> tuple[list[Work], Tensor]:
    """Compute without drawing: what was computed, and the logits [S, vocabulary] of all ranks."""
    plan = plan_of(runner, parts)
    works = runner.batch.apply(plan)
    adopt(runner, plan, parts)
    logits = runner.place.comm.all_gather(runner.forward(works))
    return works, torch.cat(list(logits), dim=-1)


def step(runner: ModelRunner, *parts: Part) -> Tensor:
    """One step; who computes all that is known grows by the likeliest token.

    Returns:
        the logits [S, vocabulary] that those tokens were drawn from, in the batch's order.
    """
    works, logits = forward(runner, *parts)
    likeliest = logits.index_fill(-1, torch.tensor([IMAGE_ID]), -torch.inf).argmax(-1)
    runner.batch.accept(works, [TokenLogprob(token, 0.0) for token in likeliest.tolist()])
    return logits


def draw(runner: ModelRunner, sequences: Sequence[DrivenSequence]) -> Tensor:
    """One step over all that is known of the sequences; each grows by its likeliest token.

    Returns:
        the logits [S, vocabulary] that the tokens were drawn from.
    """
    return step(runner, *[(sequence, None) for sequence in sequences])


def run(
    runner: ModelRunner,
    parts: Sequence[Part],
    drafts: Sequence[Sequence[int]] | None = None,
) -> list[list[int]]:
    """One step by the runner's own sampler: what each row drew that drew, in the batch's order."""
    plan = plan_of(runner, parts, drafts)
    drawn = runner.run(plan)
    adopt(runner, plan, parts)
    return [[token.token_id for token in one.tokens] for one in drawn]


def scattered_blocks(runner: ModelRunner, sequences: int, seed: int = 0) -> list[list[int]]:
    """All blocks of the cache, shuffled and dealt out."""
    blocks = list(range(runner.num_blocks))
    random.Random(seed).shuffle(blocks)
    return [blocks[index::sequences] for index in range(sequences)]


def generate(
    runner: ModelRunner, sequences: Sequence[DrivenSequence], count: int
) -> list[tuple[list[int], Tensor]]:
    """Prefill and decode together: per sequence its tokens and their logits [count, vocab].

    The sequences are those that began first of all that are live, in their order.
    """
    lengths = [len(sequence.tokens) for sequence in sequences]
    logits = torch.stack([draw(runner, sequences) for _ in range(count)], dim=1)
    return [
        (sequence.tokens[length:], row)
        for sequence, length, row in zip(sequences, lengths, logits, strict=True)
    ]
