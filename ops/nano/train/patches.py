"""Batches of pictures of one size, with what lies in each patch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, the field's name for it
from torch.utils.data import Dataset

from ops.nano.drawing.labels import SLOTS
from ops.nano.drawing.scene import Scene, draw
from ops.nano.drawing.split import Split, generator
from shards.grid import Grid
from shards.pixels import patches

_SHARES = {"page": 0.42, "shapes": 0.24, "writing": 0.1, "receipt": 0.1, "chart": 0.14}
# Patches of a picture at most, and how often.
_SIZES = {24: 0.2, 40: 0.25, 64: 0.3, 100: 0.13, 160: 0.07, 256: 0.05}
# Where the label is "none" a patch weighs this much: most of a picture is background.
_NOTHING_WEIGHS = 0.15


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """``patches`` [N, values] bfloat16, ``labels`` [N, slots] int8, of ``count`` pictures."""

    patches: Tensor
    labels: Tensor
    grid: Grid
    count: int

    @property
    def grids(self) -> list[Grid]:
        return [self.grid] * self.count


def pack(scenes: Sequence[Scene]) -> PatchBatch:
    """Pictures of one grid, made as the server makes them."""
    made = [patches(scene.image) for scene in scenes]
    values = torch.from_numpy(np.concatenate([values for _, values in made]))
    labels = torch.from_numpy(np.concatenate([scene.labels for scene in scenes]))
    return PatchBatch(values.to(torch.bfloat16), labels, made[0][0], len(scenes))


class PatchBatches(Dataset[PatchBatch]):
    """Batch number i, always the same.

    Args:
        most: patches in a picture at most.
        patches: in a batch, about.
    """

    def __init__(self, split: Split, most: int, patches: int) -> None:
        self._split = split
        self._most = most
        self._patches = patches

    def __getitem__(self, index: int) -> PatchBatch:
        rng = generator(self._split, "patches", index)
        columns, rows = grid_size(rng, self._most)
        count = max(1, self._patches // (columns * rows))
        kinds = rng.choice(list(_SHARES), count, p=list(_SHARES.values()))
        return pack(
            [
                draw(rng, str(kind), columns, rows, self._split, exact=rng.random() < 0.75)
                for kind in kinds
            ]
        )


def grid_size(rng: np.random.Generator, most: int) -> tuple[int, int]:
    """Columns and rows of at most ``most`` patches, of aspect ratios up to about 4.

    Small pictures come more often: they teach as much for less.
    """
    limit = min(most, int(rng.choice(list(_SIZES), p=list(_SIZES.values()))))
    while True:
        columns, rows = int(rng.integers(3, 17)), int(rng.integers(2, 17))
        if limit // 2 <= columns * rows <= limit and columns <= 5 * rows and rows <= 2 * columns:
            return columns, rows


class PatchHead(nn.Module):
    """Answers every slot for every patch; for training only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width)
        self.answers = nn.Linear(width, sum(SLOTS.values()))

    def forward(self, features: Tensor) -> Tensor:
        answers: Tensor = self.answers(self.norm(features))
        return answers


def patch_loss(answers: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, summed over slots."""
    total = answers.new_zeros(())
    labels = labels.long()
    for slot, logits in enumerate(torch.split(answers.float(), list(SLOTS.values()), dim=1)):
        wanted = labels[:, slot]
        weights = torch.where(wanted > 0, 1.0, _NOTHING_WEIGHS)
        losses = F.cross_entropy(logits, wanted, reduction="none")
        total = total + (losses * weights).sum() / weights.sum()
    return total


def patch_scores(answers: Tensor, labels: Tensor) -> dict[str, tuple[int, int]]:
    """Per slot: right answers, and how many, where there is something to say."""
    scores = {}
    for place, (name, logits) in enumerate(
        zip(SLOTS, torch.split(answers, list(SLOTS.values()), dim=1), strict=True)
    ):
        wanted = labels[:, place]
        there = wanted > 0
        right = (logits.argmax(1) == wanted) & there
        scores[name] = (int(right.sum()), int(there.sum()))
    return scores
