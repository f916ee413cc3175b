"""C++ and numpy do the same to pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from shards.errors import KernelError
from shards.grid import patch_grid
from shards.pillow_memory import rgbx
from shards.pixel_kernels import NativePixels, NumpyPixels, native_library
from shards.pixels import PATCH_VALUES, cut_patches

NUMPY = NumpyPixels()


@pytest.fixture(scope="module")
def native() -> NativePixels:
    return NativePixels(native_library())


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (1023, 7), (1333, 1777), (16, 1600)])
def test_patches_are_the_same(native, size):
    rng = np.random.default_rng(size)
    image = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8))
    grid = patch_grid(*size)
    values = [np.full((grid.patches, PATCH_VALUES), np.nan, np.float32) for _ in range(2)]
    cut_patches(image, grid, values[0], NUMPY)
    cut_patches(image, grid, values[1], native)
    assert np.array_equal(values[0], values[1])


def test_values_far_outside_are_the_same(native):
    """As cubic interpolation overshoots, and further."""
    rng = np.random.default_rng(3)
    rgb = (rng.standard_normal((32, 48, 3)) * 1e6).astype(np.float32)
    tiles = [np.empty((2, 3, 3, 16, 16), np.float32) for _ in range(2)]
    native.cut(rgb, tiles[0])
    # The other one works in place.
    NUMPY.cut(rgb.copy(), tiles[1])
    assert np.array_equal(tiles[0], tiles[1])


def test_only_one_piece_of_memory_is_filled(native):
    rgb = np.zeros((16, 32, 3), np.float32)
    with pytest.raises(ValueError, match="one piece"):
        native.cut(rgb, np.empty((1, 4, 3, 16, 16), np.float32)[:, ::2])


def test_what_is_no_library_is_told(tmp_path):
    (tmp_path / "kernels.so").write_bytes(b"no library")
    with pytest.raises(KernelError, match="does not load"):
        NativePixels(tmp_path / "kernels.so")


def test_a_picture_in_several_pieces_is_copied():
    """Pillow allocates large ones so, unless it is asked not to."""
    image = Image.effect_noise((5000, 2000), 90).convert("RGB")
    with rgbx(image) as pixels:
        assert np.array_equal(pixels[:, :, :3], np.asarray(image))


def test_a_picture_s_own_pixels_are_not_copied():
    image = Image.new("RGB", (40, 30), "teal")
    with rgbx(image) as pixels:
        assert pixels.shape == (30, 40, 4)
        image.putpixel((39, 29), (1, 2, 3))
        assert pixels[29, 39, :3].tolist() == [1, 2, 3]
