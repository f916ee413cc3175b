"""A picture of any kind, with what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ops.nano.drawing.canvas import PATCH, Canvas
from ops.nano.drawing.chart import Chart, draw_chart
from ops.nano.drawing.page import draw_page
from ops.nano.drawing.receipt import Receipt, draw_receipt
from ops.nano.drawing.shapes import Shapes, draw_shapes
from ops.nano.drawing.split import Split
from ops.nano.drawing.writing import Writing, draw_writing

Facts = Shapes | Writing | Receipt | Chart
KINDS = ("shapes", "writing", "receipt", "chart")
"""What is asked about; ``page`` can be drawn too."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A drawn picture.

    Attributes:
        labels: [patches, slots] (see ``labels.SLOTS``).
    """

    image: Image.Image
    facts: Facts
    labels: NDArray[np.int8]


def draw(
    rng: np.random.Generator, kind: str, columns: int, rows: int, split: Split, *, exact: bool
) -> Scene:
    """A picture that makes ``columns`` x ``rows`` patches.

    Args:
        kind: one of ``KINDS``, or ``page``; charts and receipts want some room, and shapes stand
            in where they have none.
        exact: whether its sides are whole patches; otherwise up to 15 pixels less.
    """
    width, height = columns * PATCH, rows * PATCH
    if not exact:
        width, height = (side - int(rng.integers(PATCH)) for side in (width, height))
    canvas, facts = _drawer(kind, width, height)(rng, width, height, split)
    labels = canvas.labels()
    return Scene(canvas.finish(rng), facts, labels)


_Drawer = Callable[[np.random.Generator, int, int, Split], tuple[Canvas, Facts]]


def _drawer(kind: str, width: int, height: int) -> _Drawer:
    if kind == "page":
        return draw_page
    if kind == "writing":
        return draw_writing
    if kind == "receipt" and width >= 90 and height >= 40:
        return draw_receipt
    if kind == "chart" and width >= 60 and height >= 60:
        return draw_chart
    return _shapes


def _shapes(
    rng: np.random.Generator, width: int, height: int, split: Split
) -> tuple[Canvas, Facts]:
    del split  # shapes look the same in all of them
    return draw_shapes(rng, width, height, int(rng.integers(1, 7)))
