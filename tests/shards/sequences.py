"""Drives a ModelRunner through prompts by hand: chunks, decode steps, scattered blocks."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from shards.runner import ModelRunner
from shards.step import PictureKey, PictureRows, SampleSpec, SequenceStep, StepPlan
from tests.shards.prompts import IMAGE_ID, Prompt

# As the engine does: no answer may hold a picture's placeholder.
GREEDY = SampleSpec(seed=0, choice=0, index=0, temperature=0, banned=(IMAGE_ID,))


class DrivenSequence:
    """One prompt on its way through a runner.

    Args:
        features: [patches of all its pictures, vision hidden], None without pictures.
        blocks: ids that it may use, in any order; enough for prompt and answer.
    """

    def __init__(
        self,
        runner: ModelRunner,
        name: str,
        prompt: Prompt,
        features: np.ndarray | None,
        blocks: list[int],
    ) -> None:
        self.name = name
        self.tokens = list(prompt.token_ids)
        self.computed = 0
        self._block_size = runner.block_size
        self._blocks = blocks
        self._patches = [grid.patches for grid in prompt.grids]
        first = 0
        for index, patches in enumerate(self._patches):
            assert features is not None
            runner.add_picture(PictureKey(name, index), features[first : first + patches])
            first += patches

    def step(self, count: int | None = None) -> SequenceStep:
        """Compute the next ``count`` tokens (None: all that are known)."""
        stop = len(self.tokens) if count is None else self.computed + count
        chunk = self.tokens[self.computed : stop]
        seen = self.tokens[: self.computed].count(IMAGE_ID)
        step = SequenceStep(
            token_ids=tuple(chunk),
            start=self.computed,
            block_table=tuple(self._blocks[: -(-stop // self._block_size)]),
            pictures=self._rows(seen, seen + chunk.count(IMAGE_ID)),
            sample=GREEDY if stop == len(self.tokens) else None,
        )
        self.computed = stop
        return step

    def _rows(self, first: int, last: int) -> tuple[PictureRows, ...]:
        """Patches [first, last) of the prompt, as rows of each picture."""
        rows, begin = [], 0
        for index, patches in enumerate(self._patches):
            start, stop = max(first - begin, 0), min(last - begin, patches)
            if start < stop:
                rows.append(PictureRows(PictureKey(self.name, index), start, stop))
            begin += patches
        return tuple(rows)


def scattered_blocks(runner: ModelRunner, sequences: int, seed: int = 0) -> list[list[int]]:
    """All blocks of the cache, shuffled and dealt out."""
    blocks = list(range(runner.num_blocks))
    random.Random(seed).shuffle(blocks)
    return [blocks[index::sequences] for index in range(sequences)]


def whole_logits(runner: ModelRunner, plan: StepPlan) -> Tensor:
    """A step's logits of all ranks side by side: [S, vocabulary]."""
    parts = runner.place.comm.all_gather(runner.logits(plan))
    return torch.cat(list(parts), dim=-1)


def draw(runner: ModelRunner, sequences: Sequence[DrivenSequence]) -> Tensor:
    """One step over all that is known of the sequences; each grows by its likeliest token.

    Returns:
        the logits [S, vocabulary] that the tokens were drawn from.
    """
    logits = whole_logits(runner, StepPlan(tuple(sequence.step() for sequence in sequences)))
    likeliest = logits.index_fill(-1, torch.tensor([IMAGE_ID]), -torch.inf).argmax(-1)
    for sequence, token_id in zip(sequences, likeliest.tolist(), strict=True):
        sequence.tokens.append(token_id)
    return logits


def generate(
    runner: ModelRunner, sequences: Sequence[DrivenSequence], count: int
) -> list[tuple[list[int], Tensor]]:
    """Prefill and decode together: per sequence its tokens and their logits [count, vocab]."""
    lengths = [len(sequence.tokens) for sequence in sequences]
    logits = torch.stack([draw(runner, sequences) for _ in range(count)], dim=1)
    return [
        (sequence.tokens[length:], row)
        for sequence, length, row in zip(sequences, lengths, logits, strict=True)
    ]
