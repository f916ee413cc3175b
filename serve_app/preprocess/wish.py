"""What is wanted of a file, and what its headers say there is. Standard library only.

It goes into sandboxed workers, which know nothing else of the system.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["picture", "document"]
Detail = Literal["auto", "low", "high", "original"]


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames of an animation or pages of a TIFF: ``count`` of them, or those at ``indices``.

    Exactly one is set. Indices count from 0 and are shown in the order given.
    """

    count: int | None = None
    indices: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """Which pictures of a file are shown.

    Attributes:
        kind: what the file must be; bytes that are the other kind are refused.
        frames: of a picture file; None shows the first.
        pages: of a document, as first and last, from 1 and in the order given; None as a last page
            is the document's. Empty shows all.
        dpi: dots per inch at which a document's pages are drawn; 0 takes the operator's.
    """

    kind: Kind = "picture"
    frames: Frames | None = None
    pages: tuple[tuple[int, int | None], ...] = ()
    dpi: int = 0


FIRST_FRAME = Wish()


@dataclass(frozen=True, slots=True)
class Sight:
    """The pictures that a file becomes, known from its headers.

    Attributes:
        sizes: width and height of each in pixels, upright.
        numbers: which of the file's frames (from 0) or pages (from 1) each one is.
        total: frames or pages that the file has.
    """

    sizes: tuple[tuple[int, int], ...]
    numbers: tuple[int, ...]
    total: int = 1
