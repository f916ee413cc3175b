"""What is done to pixels beside resizing, in C++ where a compiler is found, else in numpy.

Either way bits are the same. The library is one for itself: it is used where there is no torch.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from shards.errors import KernelError
from shards.native.build import SOURCES, cache_folder, library

PATCH = 16
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_MEAN = np.array(MEAN, np.float32)
_DEVIATION = np.array(DEVIATION, np.float32)

Floats = NDArray[np.float32]


class PixelKernels(Protocol):
    def widen(self, rgbx: NDArray[np.uint8]) -> Floats:
        """uint8 [height, width, 4] → float32 [height, width, 3], without the last channel."""

    def cut(self, rgb: Floats, tiles: Floats) -> None:
        """Fill ``tiles`` [rows, columns, 3, 16, 16] from [rows · 16, columns · 16, 3]: over 255,
        less mean, over deviation."""


class NumpyPixels:
    def widen(self, rgbx: NDArray[np.uint8]) -> Floats:
        return cv2.cvtColor(rgbx, cv2.COLOR_RGBA2RGB).astype(np.float32)  # type: ignore[no-any-return]

    def cut(self, rgb: Floats, tiles: Floats) -> None:
        rows, columns = tiles.shape[:2]
        # A row of patches at a time stays in the processor's cache.
        for row, band in enumerate(rgb.reshape(rows, PATCH, columns * PATCH, 3)):
            for channel, plane in enumerate(cv2.split(band)):
                np.divide(plane, np.float32(255), out=plane)
                plane -= _MEAN[channel]
                plane /= _DEVIATION[channel]
                # [16, columns · 16] → [columns, 16, 16]
                tiles[row, :, channel] = plane.reshape(PATCH, columns, PATCH).swapaxes(0, 1)


class NativePixels:
    """Raises KernelError: the library does not load."""

    def __init__(self, path: Path) -> None:
        try:
            lib = ctypes.CDLL(str(path))
        except OSError as error:
            raise KernelError(f"{path} does not load: {error}") from error
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        lib.widen.argtypes = (pointer, pointer, count)
        lib.cut.argtypes = (pointer, pointer, count, count, pointer, pointer)
        lib.widen.restype = lib.cut.restype = None
        self._lib = lib

    def widen(self, rgbx: NDArray[np.uint8]) -> Floats:
        rgbx = np.ascontiguousarray(rgbx)
        rgb = np.empty((*rgbx.shape[:2], 3), np.float32)
        self._lib.widen(rgbx.ctypes.data, rgb.ctypes.data, rgb.size // 3)
        return rgb

    def cut(self, rgb: Floats, tiles: Floats) -> None:
        rgb = np.ascontiguousarray(rgb)
        if not tiles.flags.c_contiguous:
            raise ValueError("patches are cut into one piece of memory")
        constants = (_MEAN.ctypes.data, _DEVIATION.ctypes.data)
        rows, columns = tiles.shape[:2]
        self._lib.cut(rgb.ctypes.data, tiles.ctypes.data, rows, columns, *constants)


def native_library() -> Path:
    """Where the C++ kernels are, built if need be.

    Raises:
        KernelError: they cannot be had here.
    """
    return library(cache_folder(), SOURCES / "pixels")
