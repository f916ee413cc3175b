"""Rotary position embeddings: of text by position, of picture patches by row and column.

Channels are rotated in halves (channel j with j + head_dim/2), as Hugging Face lays them out; a
Mistral checkpoint's adjacent pairs are put into that order as it is read. Angles and rotation are
float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shards.grid import Grid


@dataclass(frozen=True, slots=True)
class Rotation:
    """Cosine and sine per token and channel pair, [T, 1, head_dim / 2] (1: all heads alike)."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def by_angle(cls, angles: Tensor) -> Rotation:
        """``angles`` [T, head_dim / 2] in radians."""
        return cls(angles.cos().unsqueeze(1), angles.sin().unsqueeze(1))

    def apply(self, x: Tensor) -> Tensor:
        """Rotate [T, heads, head_dim]."""
        first, second = x.float().chunk(2, dim=-1)
        rotated = torch.cat(
            (first * self.cos - second * self.sin, second * self.cos + first * self.sin), dim=-1
        )
        return rotated.to(x.dtype)


def frequencies(head_dim: int, theta: float, device: torch.device) -> Tensor:
    """theta^(-2j / head_dim) for each pair j: [head_dim / 2]."""
    pairs = torch.arange(0, head_dim, 2, device=device, dtype=torch.float32)
    return 1.0 / theta ** (pairs / head_dim)


def text_rotation(positions: Tensor, head_dim: int, theta: float) -> Rotation:
    """Tokens at ``positions`` [T]."""
    return Rotation.by_angle(
        torch.outer(positions.float(), frequencies(head_dim, theta, positions.device))
    )


def picture_rotation(
    grids: Sequence[Grid], head_dim: int, theta: float, device: torch.device
) -> Rotation:
    """Patches of pictures packed one after the other, each starting again at row 0, column 0.

    Even frequencies turn by row, odd ones by column; the angles are [row half | column half].
    """
    base = frequencies(head_dim, theta, device)
    coordinates = [
        torch.cartesian_prod(
            torch.arange(grid.rows, device=device, dtype=torch.float32),
            torch.arange(grid.columns, device=device, dtype=torch.float32),
        )
        for grid in grids
    ]
    rows, columns = torch.cat(coordinates).unbind(-1)
    angles = torch.cat((torch.outer(rows, base[0::2]), torch.outer(columns, base[1::2])), dim=-1)
    return Rotation.by_angle(angles)
