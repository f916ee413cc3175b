"""What is wanted of a file, and what its headers say there is. Standard library only.

It goes into sandboxed workers, which know nothing else of the system.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shards.grid import Size

Detail = Literal["auto", "low", "high", "original"]
LEAST_DPI, MOST_DPI = 10, 600


@dataclass(frozen=True, slots=True)
class Frames:
    """Of a picture file: the first frame, ``count`` of them, or those at ``indices``.

    At most one of the two is set. Indices count from 0 and are shown in the order given; the pages
    of a TIFF are frames.
    """

    count: int | None = None
    indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Pages:
    """Of a document.

    Attributes:
        ranges: first and last page, from 1 and in the order given; None as a last page is the
            document's. Empty shows all.
        dpi: dots per inch at which pages are drawn.
    """

    ranges: tuple[tuple[int, int | None], ...] = ()
    dpi: int = 150


# What a file must be follows from the kind of wish: bytes of the other kind are refused.
Wish = Frames | Pages
FIRST_FRAME = Frames()


@dataclass(frozen=True, slots=True)
class Sight:
    """The pictures that a file becomes, known from its headers.

    Attributes:
        sizes: width and height of each in pixels, upright.
        numbers: which of the file's frames (from 0) or pages (from 1) each one is.
        total: frames or pages that the file has.
    """

    sizes: tuple[Size, ...]
    numbers: tuple[int, ...]
    total: int = 1
