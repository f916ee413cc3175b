"""What files are read as pictures, and how large they may be. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Format = Literal["jpeg", "png", "webp", "gif", "tiff", "bmp", "heif", "avif"]

_NAMES: dict[Format, str] = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WebP",
    "gif": "GIF",
    "tiff": "TIFF",
    "bmp": "BMP",
    "heif": "HEIF",
    "avif": "AVIF",
}
MEDIA_TYPES: dict[Format, tuple[str, ...]] = {
    "jpeg": ("image/jpeg",),
    "png": ("image/png",),
    "webp": ("image/webp",),
    "gif": ("image/gif",),
    "tiff": ("image/tiff",),
    "bmp": ("image/bmp",),
    "heif": ("image/heif", "image/heic"),
    "avif": ("image/avif",),
}
_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
)
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# A file's brands stand in its first box; no encoder lists more.
_MOST_BRANDS = 16


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """Attributes:
    formats: told by a file's first bytes and nothing else.
    max_pixels: of one picture.
    min_side: in pixels.
    max_frames, max_pages: that one file may become; no pages where documents are not taken.
    max_patches: of one picture, after scaling.
    """

    formats: tuple[Format, ...]
    max_pixels: int
    min_side: int
    max_frames: int
    max_pages: int
    max_patches: int


def format_of(data: bytes) -> Format | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        return _format_of_brands(data)
    return next((form for magic, form in _MAGIC if data.startswith(magic)), None)


def spelled(formats: Iterable[Format]) -> str:
    """
    >>> spelled(("jpeg", "png", "webp"))
    'JPEG, PNG or WebP'
    """
    *most, last = (_NAMES[form] for form in formats)
    return f"{', '.join(most)} or {last}" if most else last


def _format_of_brands(data: bytes) -> Format | None:
    end = min(int.from_bytes(data[:4], "big"), 16 + 4 * _MOST_BRANDS)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "avif"
    return "heif" if brands & _HEIF_BRANDS else None
