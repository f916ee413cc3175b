"""How many patches and tokens a picture becomes. Standard library only.

The rules are mistral-common's (``tokens/tokenizers/image.py``, 1.13.1):

1. ``ratio = max(width, height) / max_side``; above 1 both sides become ``round(side / ratio)``
   (banker's rounding, floored at 1). Pictures are never enlarged beyond patch rounding.
2. The grid is the ceiling of each side over the patch size.
3. One row of tokens is ``columns`` x [IMG] and an [IMG_BREAK]; the last break is [IMG_END].

>>> patch_grid(1920, 1080)
Grid(rows=36, columns=64)
>>> patch_grid(1920, 1080).tokens
2340
"""

from __future__ import annotations

from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A picture's patches after resizing."""

    rows: int
    columns: int

    @property
    def patches(self) -> int:
        """Positions that take a vision feature."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Tokens in the prompt, breaks and end included: rows x (columns + 1)."""
        return self.rows * (self.columns + 1)

    def token_ids(self, image: int, image_break: int, image_end: int) -> list[int]:
        """The picture's run of token ids, row by row."""
        row = [image] * self.columns + [image_break]
        return [*(row * self.rows)[:-1], image_end]


def scaled_size(width: int, height: int, max_side: int = 1024) -> Size:
    """The picture's size in pixels after rule 1.

    A picture of that size has the grid that the larger one has under ``max_side``, under any
    ``max_side`` that is no smaller.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture needs at least 1x1 pixels, not {width}x{height}")
    ratio = max(width, height) / max_side
    if ratio <= 1:
        return width, height
    return max(1, round(width / ratio)), max(1, round(height / ratio))


def patch_grid(width: int, height: int, max_side: int = 1024, patch: int = 16) -> Grid:
    """The grid of a ``width`` x ``height`` picture (pixels)."""
    width, height = scaled_size(width, height, max_side)
    return Grid(rows=(height - 1) // patch + 1, columns=(width - 1) // patch + 1)
