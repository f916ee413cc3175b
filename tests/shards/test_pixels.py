"""Patches against mistral-common's own pixels."""

from __future__ import annotations

import numpy as np
import pytest
from mistral_common.protocol.instruct.chunk import ImageChunk
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs
from PIL import Image

from shards.grid import Grid
from shards.pixels import content_hash, patches

SIZES = [
    (1, 3000),
    (5000, 7),
    (1, 1),
    (16, 16),
    (17, 31),
    (1024, 1024),
    (1025, 1024),
    (64, 40),
    (640, 480),
    (2000, 500),
    (1333, 1777),
    *[tuple(pair) for pair in np.random.default_rng(1).integers(1, 900, (12, 2)).tolist()],
]


def noise(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * 7919 + height)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8), "RGB")


def mistral_commons(max_side: int) -> ImageEncoder:
    return ImageEncoder(ImageConfig(16, max_side), SpecialImageIDs(10, 14, 15))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_patches_are_mistral_commons_pixels_to_the_bit(width, height):
    image = noise(width, height)
    pixels = mistral_commons(1024)(ImageChunk(image=image)).image

    grid, values = patches(image)

    assert values.dtype == np.float32
    assert values.shape == (grid.patches, 768)
    assert pixels.shape == (3, grid.rows * 16, grid.columns * 16)
    for place in {0, grid.columns - 1, grid.patches // 2, grid.patches - 1}:
        row, column = divmod(place, grid.columns)
        tile = pixels[:, row * 16 : row * 16 + 16, column * 16 : column * 16 + 16]
        assert np.array_equal(values[place].reshape(3, 16, 16), tile)
    whole = values.reshape(grid.rows, grid.columns, 3, 16, 16).transpose(2, 0, 3, 1, 4)
    assert np.array_equal(whole.reshape(pixels.shape), pixels)


def test_patches_are_mistral_commons_pixels_under_any_largest_side():
    """Detail and caps lower nothing but this side; 300 sizes and sides at random."""
    rng = np.random.default_rng(6)
    for width, height, max_side in rng.integers((1, 1, 16), (700, 700, 1025), (300, 3)).tolist():
        image = noise(width, height)
        pixels = mistral_commons(max_side)(ImageChunk(image=image)).image
        grid, values = patches(image, max_side)
        whole = values.reshape(grid.rows, grid.columns, 3, 16, 16).transpose(2, 0, 3, 1, 4)
        assert np.array_equal(whole.reshape(pixels.shape), pixels)


def test_overshoot_is_not_clipped():
    """Noise enlarged by cubic interpolation leaves 0…255, and the model was trained on that."""
    _, values = patches(noise(17, 33))
    assert values.min() < (0 - 0.4815) / 0.2686 - 0.01


def test_only_rgb_is_taken():
    with pytest.raises(ValueError, match="not RGBA"):
        patches(noise(4, 4).convert("RGBA"))


def test_content_hash_tells_pictures_apart():
    image = noise(40, 20)
    assert content_hash(*patches(image)) == content_hash(*patches(image.copy()))
    changed = image.copy()
    changed.putpixel((39, 19), (0, 0, 0))
    assert content_hash(*patches(image)) != content_hash(*patches(changed))


def test_content_hash_tells_shapes_apart():
    """The same patches in a row and in a column."""
    grid, values = patches(Image.new("RGB", (48, 16), "teal"))
    assert grid == Grid(1, 3)
    assert content_hash(grid, values) != content_hash(Grid(3, 1), values)
