"""From a picture to the encoder's input, by mistral-common's arithmetic; OpenCV, no torch.

Bicubic in float32 straight to the grid, neither antialiased nor clipped, then /255, minus mean,
over deviation: whatever else would look better, the model was trained on this.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shards.grid import Grid, patch_grid
from shards.pillow_memory import rgbx
from shards.pixel_kernels import DEVIATION, MEAN, PATCH, NumpyPixels, PixelKernels

__all__ = ["DEVIATION", "MEAN", "PATCH", "PATCH_VALUES", "content_hash", "patches"]

PATCH_VALUES = 3 * PATCH * PATCH
_NUMPY = NumpyPixels()


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any picture as the model sees it: upright, in RGB, white where it is transparent."""
    with suppress(Exception):  # unreadable metadata makes a picture no less visible
        image = ImageOps.exif_transpose(image)
    return rgb_on_white(image)


def rgb_on_white(image: Image.Image) -> Image.Image:
    """In mode RGB, white where it is transparent, as mistral-common has it.

    16 bits of grey are scaled; Pillow would clip them at 255, and scales colours just so.
    """
    if image.mode.startswith("I"):
        values = np.asarray(image).clip(0, 65_535) >> 8
        image = Image.fromarray(values.astype(np.uint8))
    if not image.has_transparency_data:
        # Converting would copy even so.
        return image if image.mode == "RGB" else image.convert("RGB")
    layer = image.convert("RGBA")
    white = Image.new("RGB", layer.size, "white")
    white.paste(layer, mask=layer)
    return white


def patches(image: Image.Image, max_side: int = 1024) -> tuple[Grid, NDArray[np.float32]]:
    """The picture's grid and its patches.

    Args:
        image: in mode RGB.
        max_side: what ``shards/grid.py`` calls so, in pixels.

    Returns:
        grid, float32 [rows · columns, 3 · 16 · 16]: row by row, each flattened from channel, row,
        column.
    """
    grid = patch_grid(image.width, image.height, max_side, PATCH)
    values = np.empty((grid.patches, PATCH_VALUES), np.float32)
    cut_patches(image, grid, values)
    return grid, values


def cut_patches(
    image: Image.Image,
    grid: Grid,
    values: NDArray[np.float32],
    kernels: PixelKernels = _NUMPY,
) -> None:
    """Fill ``values`` (shape as ``patches`` returns it) with the picture, scaled to ``grid``."""
    with rgbx(image) as pixels:
        source = kernels.widen(pixels)
    size = (grid.columns * PATCH, grid.rows * PATCH)
    # All channels at once: OpenCV rounds otherwise one by one.
    resized = cv2.resize(source, size, interpolation=cv2.INTER_CUBIC)
    kernels.cut(resized, values.reshape(grid.rows, grid.columns, 3, PATCH, PATCH))


def content_hash(grid: Grid, values: NDArray[np.float32]) -> str:
    """sha256 (hex) over size and pixels as the encoder gets them.

    Equal for pictures that are the same to the model, and for those of one preprocessing only: a
    feature kept under it is never one of other arithmetic.
    """
    digest = hashlib.sha256(f"{grid.rows}x{grid.columns}\n".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
