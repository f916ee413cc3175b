"""A page full of print, about which nothing is asked: every patch has letters to learn."""

from __future__ import annotations

import numpy as np

from ops.nano.drawing.canvas import Canvas
from ops.nano.drawing.labels import MOST, THINGS
from ops.nano.drawing.palette import background, ink
from ops.nano.drawing.split import Split
from ops.nano.drawing.typefaces import typeface, typefaces
from ops.nano.drawing.writing import SMALLEST, Line, Writing, any_text

_LARGEST = 28


def draw_page(
    rng: np.random.Generator, width: int, height: int, split: Split
) -> tuple[Canvas, Writing]:
    """Lines of words and numbers from edge to edge, a typeface and a size each."""
    paper = background(rng)
    canvas = Canvas.blank(rng, width, height, paper)
    faces = typefaces(split)
    top, place, lines = float(rng.uniform(0, 6)), 0, []
    while True:
        size = int(rng.integers(SMALLEST, _LARGEST + 1))
        if top + 1.1 * size > height:
            break
        place += 1
        face, shade = faces[int(rng.integers(len(faces)))], ink(rng, paper)
        left = float(rng.uniform(1, 12))
        while True:
            text, kind = any_text(rng, split)
            right = left + typeface(face, size).getlength(text)
            if right > width - 1:
                break
            labels = {"thing": THINGS.index(kind), "line": min(place, MOST)}
            canvas.text(text, (left, top + 0.85 * size), face, size, shade, labels)
            lines.append(Line(text, kind))
            left = right + size * rng.uniform(0.3, 0.8)
        top += size * rng.uniform(1.1, 1.4)
    return canvas, Writing(tuple(lines))
