"""A conversation about drawn pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ops.nano.drawing.chart import Chart
from ops.nano.drawing.receipt import Receipt
from ops.nano.drawing.scene import Scene
from ops.nano.drawing.shapes import Shapes
from ops.nano.drawing.writing import Writing
from ops.nano.questions.chart import chart_turns
from ops.nano.questions.nothing import nothing_turns
from ops.nano.questions.pair import pair_turns
from ops.nano.questions.receipt import receipt_turns
from ops.nano.questions.shapes import shape_turns
from ops.nano.questions.turn import Turn
from ops.nano.questions.writing import writing_turns


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Pictures shown first, then exchanges; follow-ups stand in their places."""

    scenes: tuple[Scene, ...]
    turns: tuple[Turn, ...]


def about(rng: np.random.Generator, scene: Scene, count: int) -> Dialogue:
    """Up to ``count`` questions about one picture, and what follows them."""
    return Dialogue((scene,), _flat(_turns(rng, scene, count)))


def about_two(rng: np.random.Generator, pair: tuple[Scene, Scene], count: int) -> Dialogue:
    """About two pictures of shapes."""
    first, second = (scene.facts for scene in pair)
    if not (isinstance(first, Shapes) and isinstance(second, Shapes)):
        raise TypeError("only pictures of shapes are compared")
    return Dialogue(pair, _flat(pair_turns(rng, (first, second), count)))


def about_nothing(rng: np.random.Generator, scene: Scene, count: int) -> Dialogue:
    """What would be asked about ``scene``, which is not shown."""
    return Dialogue((), tuple(nothing_turns(rng, _turns(rng, scene, count), count)))


def _turns(rng: np.random.Generator, scene: Scene, count: int) -> list[Turn]:
    match scene.facts:
        case Shapes():
            return shape_turns(rng, scene.facts, count)
        case Writing():
            return writing_turns(rng, scene.facts, count)
        case Receipt():
            return receipt_turns(rng, scene.facts, count)
        case Chart():
            return chart_turns(rng, scene.facts, count)


def _flat(turns: list[Turn]) -> tuple[Turn, ...]:
    return tuple(each for turn in turns for each in (turn, *turn.follow_ups))
