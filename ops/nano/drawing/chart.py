"""Upright bars with labels below, and often with their values above."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ops.nano.drawing.canvas import Box, Canvas
from ops.nano.drawing.labels import THINGS
from ops.nano.drawing.palette import COLOURS, background, colour, distance, ink
from ops.nano.drawing.split import Split
from ops.nano.drawing.typefaces import typeface, typefaces

FAMILIES = (
    tuple("ABCDEFGH"),
    tuple("PQRSTUVW"),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    ("Q1", "Q2", "Q3", "Q4"),
    ("Ann", "Ben", "Cat", "Dan", "Eva", "Gus", "Ida", "Leo", "Mia", "Tom"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    label: str
    value: int
    colour: str


@dataclass(frozen=True, slots=True)
class Chart:
    """What there is to know of such a picture: its bars from the left, all of unlike values."""

    bars: tuple[Bar, ...]
    values_shown: bool


def draw_chart(
    rng: np.random.Generator, width: int, height: int, split: Split
) -> tuple[Canvas, Chart]:
    """Wants at least 64 x 64 pixels."""
    paper = background(rng)
    canvas = Canvas.blank(rng, width, height, paper)
    face, shade = str(rng.choice(typefaces(split))), ink(rng, paper)
    family = FAMILIES[int(rng.integers(len(FAMILIES)))]
    size = int(rng.integers(11, 17))
    widest = max(typeface(face, size).getlength(label) for label in family) + 4
    count = int(rng.integers(2, max(3, min(6, len(family), int((width - 4) / widest)) + 1)))
    count = min(count, max(2, int((width - 4) / widest)))
    start = int(rng.integers(len(family) - count + 1))
    labels = family[start : start + count]
    if rng.random() < 0.3:
        labels = tuple(str(label) for label in rng.choice(family, count, replace=False))
    values = _values(rng, count)
    bars = _bars(rng, labels, values, paper)
    chart = Chart(tuple(bar for bar, _ in bars), rng.random() < 0.75)
    _draw(rng, canvas, chart, [shade_ for _, shade_ in bars], face, size, shade)
    return canvas, chart


def _values(rng: np.random.Generator, count: int) -> list[int]:
    """Unlike, the nearest two at least a twelfth of the largest apart."""
    top = int(rng.choice([10, 20, 50, 100]))
    while True:
        values = [int(value) for value in rng.integers(1, top, count)]
        ordered = sorted(values)
        gaps = [high - low for low, high in pairwise(ordered)]
        if min(gaps) * 12 >= ordered[-1]:
            return values


def _bars(
    rng: np.random.Generator,
    labels: tuple[str, ...],
    values: list[int],
    paper: tuple[int, int, int],
) -> list[tuple[Bar, tuple[int, int, int]]]:
    one = None if rng.random() < 0.5 else str(rng.choice(COLOURS))
    bars = []
    for label, value in zip(labels, values, strict=True):
        while True:
            name = one or str(rng.choice(COLOURS))
            shade = colour(rng, name)
            if distance(shade, paper) > 120:
                break
            one = None if one is None else str(rng.choice(COLOURS))
        bars.append((Bar(label, value, name), shade))
    return bars


def _draw(
    rng: np.random.Generator,
    canvas: Canvas,
    chart: Chart,
    shades: list[tuple[int, int, int]],
    face: str,
    size: int,
    ink_: tuple[int, int, int],
) -> None:
    width, height = canvas.image.size
    base = height - size - 5
    top = (size + 6) if chart.values_shown else 4
    pitch = (width - 4) / len(chart.bars)
    thick = pitch * rng.uniform(0.45, 0.85)
    largest = max(bar.value for bar in chart.bars)
    scale = (base - top) / largest * rng.uniform(0.85, 1)
    ordered = sorted((bar.value for bar in chart.bars), reverse=True)
    font = typeface(face, size)
    for place, (bar, shade) in enumerate(zip(chart.bars, shades, strict=True)):
        middle = 2 + (place + 0.5) * pitch
        tip = base - max(2.0, bar.value * scale)
        here = {
            "line": place + 1,
            "rank": 1 + ordered.index(bar.value),
            "total": len(chart.bars),
        }
        drawn = {
            "thing": THINGS.index("bar"),
            "colour": 1 + COLOURS.index(bar.colour),
            "same_colour": sum(other.colour == bar.colour for other in chart.bars),
        }
        canvas.bar(Box(middle - thick / 2, tip, middle + thick / 2, base), shade, here | drawn)
        left = middle - font.getlength(bar.label) / 2
        canvas.text(
            bar.label, (left, height - 4), face, size, ink_,
            here | {"thing": THINGS.index("label")},
        )  # fmt: skip
        if chart.values_shown:
            value = str(bar.value)
            left = middle - font.getlength(value) / 2
            canvas.text(
                value, (left, tip - 3), face, size, ink_, here | {"thing": THINGS.index("value")}
            )
    if rng.random() < 0.7:
        canvas.line((2, base), (width - 2, base), ink_)
