"""Coloured shapes that do not overlap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ops.nano.drawing.canvas import Box, Canvas
from ops.nano.drawing.labels import SHAPES, THINGS
from ops.nano.drawing.palette import COLOURS, Rgb, background, colour, distance

_SMOOTH = 4
_LEAST_CONTRAST = 120
_LEAST_SIZE = 13
_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class Shape:
    """One of a picture's shapes; ``row`` and ``column`` are thirds of the picture, from 0."""

    name: str
    colour: str
    box: Box
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Shapes:
    """What there is to know of such a picture."""

    shapes: tuple[Shape, ...]


def draw_shapes(
    rng: np.random.Generator, width: int, height: int, count: int
) -> tuple[Canvas, Shapes]:
    """Up to ``count`` shapes, fewer where they do not fit; at least one."""
    paper = background(rng)
    canvas = Canvas.blank(rng, width, height, paper)
    # Often one shape or one colour comes several times: there is something to tell apart.
    some_shapes = _few(rng, SHAPES, 0.5)
    some_colours = _few(rng, COLOURS, 0.4)
    planned: list[tuple[Shape, Rgb]] = []
    while not planned:
        for box in _boxes(rng, width, height, count):
            colour_name, shade = _seen(rng, some_colours, paper)
            x, y = box.centre
            name = some_shapes[int(rng.integers(len(some_shapes)))]
            shape = Shape(name, colour_name, box, int(3 * y / height), int(3 * x / width))
            planned.append((shape, shade))
    shapes = tuple(shape for shape, _ in planned)
    for shape, shade in planned:
        canvas.paste(_mask(rng, shape), shape.box, shade, _labels(shape, shapes))
    return canvas, Shapes(shapes)


def _few(rng: np.random.Generator, names: tuple[str, ...], chance: float) -> list[str]:
    """One to three of them by ``chance``, else eight; the same may come twice."""
    count = int(rng.integers(1, 4)) if rng.random() < chance else 8
    return [str(name) for name in rng.choice(names, count)]


def _seen(rng: np.random.Generator, names: list[str], paper: Rgb) -> tuple[str, Rgb]:
    """One of ``names`` that stands out from ``paper``, or any colour that does."""
    attempt = 0
    while True:
        attempt += 1
        choices = names if attempt < _PATIENCE else COLOURS
        name = choices[int(rng.integers(len(choices)))]
        shade = colour(rng, name)
        if distance(shade, paper) > _LEAST_CONTRAST:
            return name, shade


def _boxes(rng: np.random.Generator, width: int, height: int, count: int) -> list[Box]:
    side = min(width, height)
    largest = max(_LEAST_SIZE + 3, min(0.6, 0.95 / math.sqrt(count)) * side)
    boxes: list[Box] = []
    for _ in range(count * 25):
        size = rng.uniform(_LEAST_SIZE, largest)
        if size > min(width, height) - 2:
            continue
        left, top = rng.uniform(1, width - size - 1), rng.uniform(1, height - size - 1)
        box = Box(left, top, left + size, top + size)
        x, y = box.centre
        if _between(x / width) or _between(y / height):
            continue
        if any(box.touches(other, 2) for other in boxes):
            continue
        boxes.append(box)
        if len(boxes) == count:
            break
    return boxes


def _between(share: float) -> bool:
    """Whether a place is so near a border of thirds that people would not agree on it."""
    return any(abs(share - border) < 0.045 for border in (1 / 3, 2 / 3))


def _labels(shape: Shape, shapes: tuple[Shape, ...]) -> dict[str, int]:
    return {
        "thing": THINGS.index(shape.name),
        "colour": 1 + COLOURS.index(shape.colour),
        "total": len(shapes),
        "alike": sum(other.name == shape.name for other in shapes),
        "same_colour": sum(other.colour == shape.colour for other in shapes),
        "row": 1 + shape.row,
        "column": 1 + shape.column,
    }


def _mask(rng: np.random.Generator, shape: Shape) -> Image.Image:
    """The shape in its box, its edges smooth."""
    size = round(shape.box.right - shape.box.left)
    side = size * _SMOOTH
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    whole = (0, 0, side - 1, side - 1)
    if shape.name == "circle":
        draw.ellipse(whole, 255)
    elif shape.name == "ring":
        draw.ellipse(whole, 255)
        rim = side * rng.uniform(0.17, 0.26)
        draw.ellipse((rim, rim, side - 1 - rim, side - 1 - rim), 0)
    else:
        turn = math.radians(rng.uniform(*_TURNS.get(shape.name, (-12, 12))))
        draw.polygon(_fitted(_OUTLINES[shape.name], turn, side), 255)
    return mask.reduce(_SMOOTH)


def _fitted(
    outline: tuple[tuple[float, float], ...], turn: float, side: int
) -> list[tuple[float, float]]:
    """Turned about its middle, then made as large as the box allows."""
    cos, sin = math.cos(turn), math.sin(turn)
    turned = np.array([(x * cos - y * sin, x * sin + y * cos) for x, y in outline])
    low, high = turned.min(0), turned.max(0)
    placed = (turned - (low + high) / 2) * ((side - 1) / (high - low).max()) + (side - 1) / 2
    return [(float(x), float(y)) for x, y in placed]


def _star() -> tuple[tuple[float, float], ...]:
    angles = [math.pi * step / 5 - math.pi / 2 for step in range(10)]
    return tuple(
        ((1, 0.42)[step % 2] * math.cos(angle), (1, 0.42)[step % 2] * math.sin(angle))
        for step, angle in enumerate(angles)
    )


def _heart() -> tuple[tuple[float, float], ...]:
    steps = [2 * math.pi * step / 40 for step in range(40)]
    return tuple(
        (
            16 * math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)),
        )
        for t in steps
    )


_TURNS = {"star": (0, 72), "diamond": (-6, 6), "square": (-14, 14)}
_ARM = 0.36
_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((-1, -1), (1, -1), (1, 1), (-1, 1)),
    "triangle": ((0, -0.87), (1, 0.87), (-1, 0.87)),
    "diamond": ((0, -1), (0.68, 0), (0, 1), (-0.68, 0)),
    "cross": (
        (-_ARM, -1), (_ARM, -1), (_ARM, -_ARM), (1, -_ARM), (1, _ARM), (_ARM, _ARM),
        (_ARM, 1), (-_ARM, 1), (-_ARM, _ARM), (-1, _ARM), (-1, -_ARM), (-_ARM, -_ARM),
    ),
    "star": _star(),
    "heart": _heart(),
}  # fmt: skip
