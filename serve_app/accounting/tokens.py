"""What is metered: tokens, in five disjoint kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A kind of ledger line. A prompt token is of exactly one of the first four."""

    TEXT = "text"
    IMAGE = "image"  # rows x (columns + 1): patches, row breaks and the end of a picture
    CACHED_TEXT = "cached_text"
    CACHED_IMAGE = "cached_image"
    OUTPUT = "output"

    @property
    def cached(self) -> bool:
        """Found, not computed."""
        return self in (Kind.CACHED_TEXT, Kind.CACHED_IMAGE)


_KINDS = tuple(Kind)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts by kind."""

    text: int = 0
    image: int = 0
    cached_text: int = 0
    cached_image: int = 0
    output: int = 0

    def __post_init__(self) -> None:
        for kind, count in self.items():
            if count < 0:
                raise ValueError(f"{count} {kind} tokens")

    def items(self) -> Iterator[tuple[Kind, int]]:
        """Every kind, zeros included."""
        counts = (self.text, self.image, self.cached_text, self.cached_image, self.output)
        return zip(_KINDS, counts, strict=True)

    @property
    def prompt(self) -> int:
        return self.text + self.image + self.cached_text + self.cached_image

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(**{kind: count + getattr(other, kind) for kind, count in self.items()})
