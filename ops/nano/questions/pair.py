"""Questions about two pictures of shapes."""

from __future__ import annotations

import numpy as np

from ops.nano.drawing.labels import SHAPES
from ops.nano.drawing.palette import COLOURS
from ops.nano.drawing.shapes import Shapes
from ops.nano.questions.shapes import plural
from ops.nano.questions.turn import Turn, pick, say

_PLACES = ("first", "second")


def pair_turns(rng: np.random.Generator, pair: tuple[Shapes, Shapes], count: int) -> list[Turn]:
    makers = (_more, _more_some, _more_some, _more_some, _count, _count_some, _colour, _same)
    turns: list[Turn] = []
    for place in rng.permutation(len(makers)):
        turn = makers[place](rng, pair)
        if turn is not None:
            turns.append(turn)
        if len(turns) == count:
            break
    return turns


def _more(rng: np.random.Generator, pair: tuple[Shapes, Shapes]) -> Turn:
    ways = ("Which picture has more {them}?", "Which one has more {them}?",
            "Which picture shows more {them}?")  # fmt: skip
    return Turn(
        "comparison", say(rng, ways, them="shapes"), _winner(*(len(one.shapes) for one in pair))
    )


def _more_some(rng: np.random.Generator, pair: tuple[Shapes, Shapes]) -> Turn:
    ways = ("Which picture has more {them}?", "Which one has more {them}?",
            "Which picture shows more {them}?")  # fmt: skip
    by_colour = rng.random() < 0.35
    kinds = [[shape.colour if by_colour else shape.name for shape in one.shapes] for one in pair]
    kind = pick(rng, kinds[0] + kinds[1])
    them = f"{kind} shapes" if by_colour else plural(kind)
    answer = _winner(*(one.count(kind) for one in kinds))
    return Turn("comparison", say(rng, ways, them=them), answer)


def _count(rng: np.random.Generator, pair: tuple[Shapes, Shapes]) -> Turn:
    ways = (
        "How many shapes are in the {place} picture?",
        "Count the shapes of the {place} picture.",
    )
    which = int(rng.integers(2))
    return Turn("count", say(rng, ways, place=_PLACES[which]), str(len(pair[which].shapes)))


def _count_some(rng: np.random.Generator, pair: tuple[Shapes, Shapes]) -> Turn:
    ways = (
        "How many {them} are in the {place} picture?",
        "Count the {them} of the {place} picture.",
    )
    which = int(rng.integers(2))
    names = [shape.name for shape in pair[which].shapes]
    name = pick(rng, names) if rng.random() < 0.7 else pick(rng, SHAPES)
    asked = say(rng, ways, them=plural(name), place=_PLACES[which])
    return Turn("count", asked, str(names.count(name)))


def _colour(rng: np.random.Generator, pair: tuple[Shapes, Shapes]) -> Turn | None:
    which = int(rng.integers(2))
    names = [shape.name for shape in pair[which].shapes]
    alone = [shape for shape in pair[which].shapes if names.count(shape.name) == 1]
    if not alone:
        return None
    shape = alone[int(rng.integers(len(alone)))]
    ways = (
        "What colour is the {shape} in the {place} picture?",
        "Which colour has the {shape} of the {place} picture?",
    )
    return Turn("colour", say(rng, ways, shape=shape.name, place=_PLACES[which]), shape.colour)


def _same(rng: np.random.Generator, pair: tuple[Shapes, Shapes]) -> Turn:
    by_colour = rng.random() < 0.4
    kinds = [{shape.colour if by_colour else shape.name for shape in one.shapes} for one in pair]
    kind = (
        pick(rng, sorted(kinds[0] | kinds[1]))
        if rng.random() < 0.8
        else pick(rng, COLOURS if by_colour else SHAPES)
    )
    what = f"{kind} shapes" if by_colour else plural(kind)
    ways = ("Do both pictures show {what}?", "Are there {what} in both pictures?")
    both = kind in kinds[0] and kind in kinds[1]
    return Turn("comparison", say(rng, ways, what=what), "yes" if both else "no")


def _winner(first: int, second: int) -> str:
    if first == second:
        return "both the same"
    return f"the {_PLACES[second > first]}"
