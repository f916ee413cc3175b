"""Prompts of random words and pictures, each of a number of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ops.bench.engine.model import Model
from shards.grid import Grid, patch_grid
from shards.pixels import content_hash
from shards.request import Picture

# <s>, [INST] and [/INST] of every Pixtral tokenizer; ordinary words begin far above them.
_BEGIN, _ASK, _END = 1, 3, 4
_FIRST_WORD = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """Token ids, and the picture that they show: as theirs takes it and as ours does.

    Attributes:
        pixels: [3, rows * patch, columns * patch]; None for text.
        patches: [patches, 3 * patch * patch]; None for text.
        pictures: with a hash of the content; at most one.
    """

    token_ids: tuple[int, ...]
    pixels: NDArray[np.float32] | None = None
    patches: NDArray[np.float32] | None = None
    pictures: tuple[Picture, ...] = ()

    @property
    def grids(self) -> tuple[Grid, ...]:
        return tuple(picture.grid for picture in self.pictures)

    def then(self, token_ids: tuple[int, ...]) -> Prompt:
        """The conversation goes on: the same picture, more tokens."""
        return replace(self, token_ids=(*self.token_ids, *token_ids))


def text_prompt(model: Model, number: int, tokens: int) -> Prompt:
    """``tokens`` in all, the marks around them included."""
    return Prompt((_BEGIN, _ASK, *words(model, number, tokens - 3), _END))


def picture_prompt(model: Model, number: int, side: int, text_tokens: int) -> Prompt:
    """A square picture of ``side`` pixels before ``text_tokens`` others (the marks included)."""
    vision = model.config.vision
    grid = patch_grid(side, side, max_side=vision.image_size, patch=vision.patch_size)
    shape = (vision.channels, grid.rows * vision.patch_size, grid.columns * vision.patch_size)
    pixels = np.random.default_rng([number, side]).standard_normal(shape, np.float32)
    shown = grid.token_ids(model.config.image_token_id, *model.break_and_end)
    asked = words(model, number, text_tokens - 3)
    patches = _patches(pixels, grid, vision.patch_size)
    pictures = (Picture(grid, content_hash(grid, patches)),)
    return Prompt((_BEGIN, _ASK, *shown, *asked, _END), pixels, patches, pictures)


def words(model: Model, number: int, count: int) -> tuple[int, ...]:
    """``count`` distinct ids of ordinary tokens."""
    ids = np.random.default_rng([number, count]).choice(
        model.config.text.vocab_size - _FIRST_WORD, count, replace=False
    )
    return tuple(int(word) + _FIRST_WORD for word in ids)


def _patches(pixels: NDArray[np.float32], grid: Grid, side: int) -> NDArray[np.float32]:
    tiles = pixels.reshape(len(pixels), grid.rows, side, grid.columns, side)
    return np.ascontiguousarray(tiles.transpose(1, 3, 0, 2, 4)).reshape(grid.patches, -1)
