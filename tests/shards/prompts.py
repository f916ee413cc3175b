"""Random prompts with pictures of awkward sizes, for tiny models. No transformers in here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shards.grid import Grid, patch_grid

IMAGE_ID = 10
PATCH = 16
VOCABULARY = 512


@dataclass(frozen=True)
class Prompt:
    """Token ids, and per picture its grid and pixels [C, rows * patch, columns * patch]."""

    token_ids: tuple[int, ...]
    grids: tuple[Grid, ...] = ()
    pixels: tuple[Tensor, ...] = ()

    def patches(self) -> Tensor:
        """[N, C * patch * patch], all pictures packed."""
        return torch.cat([_patches(picture) for picture in self.pixels])


def prompts(image_break: int, image_end: int) -> dict[str, Prompt]:
    """The four kinds of prompt; pictures are random and of awkward sizes (width, height)."""
    generator = torch.Generator().manual_seed(7)

    def words(count: int) -> list[int]:
        return torch.randint(20, VOCABULARY, (count,), generator=generator).tolist()

    def build(*pieces: list[int] | tuple[int, int]) -> Prompt:
        ids: list[int] = [1]
        grids, pixels = [], []
        for piece in pieces:
            if isinstance(piece, list):
                ids += piece
                continue
            grid = patch_grid(*piece, max_side=128, patch=PATCH)
            ids += grid.token_ids(IMAGE_ID, image_break, image_end)
            grids.append(grid)
            shape = (3, grid.rows * PATCH, grid.columns * PATCH)
            pixels.append(torch.randn(shape, generator=generator))
        return Prompt(tuple(ids), tuple(grids), tuple(pixels))

    return {
        "text": build(words(23)),
        "one picture": build(words(4), (70, 45), words(6)),
        "three pictures": build(words(3), (33, 97), words(5), (150, 20), (50, 50), words(4)),
        "second turn": build(words(3), (45, 61), words(5), words(17), [3], words(8)),
    }


def _patches(picture: Tensor) -> Tensor:
    channels, height, width = picture.shape
    grid = picture.reshape(channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return grid.permute(1, 3, 0, 2, 4).reshape(-1, channels * PATCH * PATCH)
