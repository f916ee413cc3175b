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

PATCH = 16
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any picture as the model sees it: upright, in RGB, white where it is transparent.

    16 bits of grey are scaled; Pillow would clip them at 255, and scales colours just so.
    """
    with suppress(Exception):  # unreadable metadata makes a picture no less visible
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
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
    if image.mode != "RGB":
        raise ValueError(f"pictures are RGB here, not {image.mode}")
    grid = patch_grid(image.width, image.height, max_side, PATCH)
    values = np.empty((grid.rows, grid.columns, 3, PATCH, PATCH), np.float32)
    for channel, (mean, deviation) in enumerate(zip(MEAN, DEVIATION, strict=True)):
        # One channel at a time: a large picture would take 12 bytes a pixel as float32.
        plane = _resized(image.getchannel(channel), grid)
        plane /= np.float32(255)
        plane -= np.float32(mean)
        plane /= np.float32(deviation)
        # [rows · 16, columns · 16] → [rows, columns, 16, 16]
        tiles = plane.reshape(grid.rows, PATCH, grid.columns, PATCH).swapaxes(1, 2)
        values[:, :, channel] = tiles
    return grid, values.reshape(grid.patches, -1)


def content_hash(grid: Grid, values: NDArray[np.float32]) -> str:
    """sha256 (hex) over size and pixels as the encoder gets them.

    Equal for pictures that are the same to the model, and for those of one preprocessing only: a
    feature kept under it is never one of other arithmetic.
    """
    digest = hashlib.sha256(f"{grid.rows}x{grid.columns}\n".encode())
    digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def _resized(plane: Image.Image, grid: Grid) -> NDArray[np.float32]:
    size = (grid.columns * PATCH, grid.rows * PATCH)
    pixels = np.asarray(plane, dtype=np.float32)
    resized: NDArray[np.float32] = cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC)
    return resized
