"""One to three lines of print: a word or a number each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ops.nano.drawing.canvas import Canvas
from ops.nano.drawing.labels import THINGS
from ops.nano.drawing.palette import background, ink
from ops.nano.drawing.split import Split
from ops.nano.drawing.typefaces import typeface, typefaces
from ops.nano.drawing.words import common, made_up

SMALLEST, LARGEST = 12, 36


@dataclass(frozen=True, slots=True)
class Line:
    text: str
    kind: str  # "word" or "number"


@dataclass(frozen=True, slots=True)
class Writing:
    """What there is to know of such a picture: its lines from the top."""

    lines: tuple[Line, ...]


def draw_writing(
    rng: np.random.Generator, width: int, height: int, split: Split
) -> tuple[Canvas, Writing]:
    paper = background(rng)
    canvas = Canvas.blank(rng, width, height, paper)
    count = 1 if height < 44 or rng.random() < 0.45 else int(rng.integers(2, 4))
    count = max(1, min(count, height // 20))
    face = str(rng.choice(typefaces(split)))
    shade = ink(rng, paper)
    band = height / count
    lines = []
    for place in range(count):
        text, kind = any_text(rng, split)
        size = _size(rng, text, face, width, band)
        while size is None:
            text, kind = any_text(rng, split)
            size = _size(rng, text, face, width, band)
        # Hinting makes some sizes wider than in proportion.
        spare_x = max(0.0, width - 4 - typeface(face, size).getlength(text))
        spare_y = max(0.0, band - 1.15 * size)
        x = 2 + rng.uniform(0, spare_x)
        y = place * band + 0.9 * size + rng.uniform(0, spare_y)
        labels = {"thing": THINGS.index(kind), "line": place + 1, "total": count}
        canvas.text(text, (x, y), face, size, shade, labels)
        lines.append(Line(text, kind))
    return canvas, Writing(tuple(lines))


def any_text(rng: np.random.Generator, split: Split) -> tuple[str, str]:
    """A word or a number, and which of both it is."""
    if rng.random() < 0.4:
        digits = int(rng.integers(1, 5))
        return str(int(rng.integers(10 ** (digits - 1) if digits > 1 else 0, 10**digits))), "number"
    if rng.random() < 0.5:
        words = common(split)
        word = words[int(rng.integers(len(words)))]
    else:
        word = made_up(rng, split, int(rng.integers(2, 9)))
    style = rng.random()
    if style < 0.3:
        word = word.upper()
    elif style < 0.55:
        word = word.capitalize()
    return word, "word"


def _size(rng: np.random.Generator, text: str, face: str, width: int, band: float) -> int | None:
    """A size at which ``text`` fits; None if even the smallest is too large."""
    per_pixel = typeface(face, 20).getlength(text) / 20
    most = min(int((width - 6) / per_pixel), int(band / 1.2), LARGEST)
    return int(rng.integers(SMALLEST, most + 1)) if most >= SMALLEST else None
