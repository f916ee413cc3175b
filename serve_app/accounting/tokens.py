"""What is metered: tokens, in six disjoint kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """A kind of ledger line. A prompt token is of exactly one of the first four.

    A rejected draft is a guess at the answer's next token that was computed for nothing. It is the
    platform's own gamble: no team is ever charged for one.
    """

    TEXT = "text"
    IMAGE = "image"  # rows x (columns + 1): patches, row breaks and the end of a picture
    CACHED_TEXT = "cached_text"
    CACHED_IMAGE = "cached_image"
    OUTPUT = "output"
    REJECTED_DRAFT = "rejected_draft"

    @property
    def priced_as(self) -> Kind:
        """The kind whose price it has: a draft is computed as a token of the answer is."""
        return Kind.OUTPUT if self is Kind.REJECTED_DRAFT else self


_KINDS = tuple(Kind)
# What a price is set for, and a team may be charged.
CHARGED = tuple(kind for kind in Kind if kind is not Kind.REJECTED_DRAFT)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Counts by kind."""

    text: int = 0
    image: int = 0
    cached_text: int = 0
    cached_image: int = 0
    output: int = 0
    rejected_draft: int = 0

    def __post_init__(self) -> None:
        for kind, count in self.items():
            if count < 0:
                raise ValueError(f"{count} {kind} tokens")

    def items(self) -> Iterator[tuple[Kind, int]]:
        """Every kind, zeros included."""
        counts = (
            self.text,
            self.image,
            self.cached_text,
            self.cached_image,
            self.output,
            self.rejected_draft,
        )
        return zip(_KINDS, counts, strict=True)

    @property
    def prompt(self) -> int:
        return self.text + self.image + self.cached_text + self.cached_image

    def __add__(self, other: Tokens) -> Tokens:
        return Tokens(**{kind: count + getattr(other, kind) for kind, count in self.items()})
