"""Grids against mistral-common's own."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from PIL import Image

from shards.grid import patch_grid, scaled_size

# Sizes of everyday pictures, of strips, and far beyond both.
SPANS = (64, 1100, 5000, 60_000)


class Sized:
    """All that mistral-common's rule reads of a picture."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)


def mistral_commons(width: int, height: int, max_side: int) -> tuple[int, int]:
    encoder = ImageEncoder(ImageConfig(16, max_side), SpecialImageIDs(10, 14, 15))
    image = cast(Image.Image, Sized(width, height))
    columns, rows = encoder._image_to_num_tokens(image)
    return rows, columns


@pytest.mark.parametrize("span", SPANS)
def test_grids_are_mistral_commons_under_any_largest_side(span):
    """20,000 sizes and sides at random."""
    rng = np.random.default_rng(span)
    for width, height, max_side in rng.integers((1, 1, 1), (span, span, 2049), (5000, 3)).tolist():
        grid = patch_grid(width, height, max_side)
        assert (grid.rows, grid.columns) == mistral_commons(width, height, max_side)


def test_a_scaled_picture_has_the_grid_of_the_one_it_comes_from():
    rng = np.random.default_rng(2)
    for width, height, max_side in rng.integers((1, 1, 1), (9000, 9000, 1025), (5000, 3)).tolist():
        size = scaled_size(width, height, max_side)
        assert max(size) <= max_side or size == (width, height)
        assert patch_grid(*size) == patch_grid(width, height, max_side)


def test_a_larger_side_never_takes_fewer_tokens():
    """What the search for the side that fits a cap relies on."""
    rng = np.random.default_rng(3)
    for width, height in rng.integers(1, 3000, (40, 2)).tolist():
        tokens = [patch_grid(width, height, side).tokens for side in range(1, 1025)]
        assert tokens == sorted(tokens)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (-1, 5)])
def test_nothing_is_no_picture(size):
    with pytest.raises(ValueError, match="at least 1x1"):
        patch_grid(*size)
