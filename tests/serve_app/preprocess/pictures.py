"""Encoded pictures for tests, sound and otherwise."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def noise(width: int = 40, height: int = 30, channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(channels)
    return Image.fromarray(rng.integers(0, 256, (height, width, channels), np.uint8))


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG written by hand: modes that Pillow does not write, sizes that are not there."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(pixels)), chunk(b"IEND", b""))
    )


def large_png(side: int) -> bytes:
    """A few kilobytes that are ``side`` x ``side`` pixels of one colour."""
    return encoded(Image.new("RGB", (side, side), "teal"), "PNG", compress_level=9)
