"""Questions about coloured shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ops.nano.drawing.labels import SHAPES
from ops.nano.drawing.palette import COLOURS
from ops.nano.drawing.shapes import Shape, Shapes
from ops.nano.questions.turn import Turn, pick, say

_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")
_PLURALS = {"cross": "crosses"}


def shape_turns(rng: np.random.Generator, facts: Shapes, count: int) -> list[Turn]:
    """``count`` questions, the same kind of question twice at most by chance."""
    makers: list[Callable[[np.random.Generator, Shapes], Turn | None]] = [
        _name, _name, _colour, _colour, _count_all, _count_some, _count_some, _where, _where,
        _extreme, _present, _describe, _json, _json,
    ]  # fmt: skip
    turns: list[Turn] = []
    for place in rng.permutation(len(makers)):
        turn = makers[place](rng, facts)
        if turn is not None:
            turns.append(turn)
        if len(turns) == count:
            break
    return turns


def position(shape: Shape) -> str:
    """In words: "top left", "centre", …"""
    return f"{_ROWS[shape.row]} {_COLUMNS[shape.column]}".strip() or "centre"


def plural(name: str) -> str:
    return _PLURALS.get(name, f"{name}s")


def article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _name(rng: np.random.Generator, facts: Shapes) -> Turn | None:
    shapes = facts.shapes
    if len(shapes) == 1:
        ways: tuple[str, ...] = (
            "What shape is this?", "Which shape do you see?", "What shape is in the picture?",
            "Name the shape.", "What is the shape called?", "What shape is it?",
        )  # fmt: skip
        shape = shapes[0]
        follow = (
            Turn("follow_up", say(rng, ("What colour is it?", "And its colour?")), shape.colour),
            Turn("follow_up", say(rng, ("Where is it?", "And where is it?")), position(shape)),
        )
        chosen = (follow[int(rng.integers(2))],) if rng.random() < 0.4 else ()
        return Turn("shape", say(rng, ways), shape.name, follow_ups=chosen)
    one = _unlike(rng, shapes, lambda shape: shape.colour)
    if one is not None and rng.random() < 0.7:
        ways = (
            "What shape is {colour}?", "Which shape is {colour}?", "What is the {colour} shape?",
            "What shape is the {colour} one?", "Name the {colour} shape.",
            "What shape does the {colour} thing have?",
        )  # fmt: skip
        return Turn("shape", say(rng, ways, colour=one.colour), one.name)
    one = _unlike(rng, shapes, position)
    if one is None:
        return None
    ways = (
        "What shape is {place}?", "Which shape is {place}?", "What is {place}?",
        "Name the shape {place}.",
    )  # fmt: skip
    return Turn("shape", say(rng, ways, place=_at(position(one))), one.name)


def _colour(rng: np.random.Generator, facts: Shapes) -> Turn | None:
    one = _unlike(rng, facts.shapes, lambda shape: shape.name)
    if one is None:
        return None
    if len(facts.shapes) == 1 and rng.random() < 0.5:
        ways: tuple[str, ...] = (
            "What colour is it?", "Which colour is the shape?", "What color is this?",
            "What colour is the shape?", "Name the colour of the shape.",
        )  # fmt: skip
        return Turn("colour", say(rng, ways), one.colour)
    ways = (
        "What colour is the {shape}?", "What color is the {shape}?",
        "Which colour has the {shape}?", "The {shape}: which colour is it?",
        "Name the colour of the {shape}.",
        "Which colour is the {shape}?",
    )  # fmt: skip
    follow: tuple[Turn, ...] = ()
    other = _unlike(rng, facts.shapes, lambda shape: shape.name)
    if other is not None and other is not one and rng.random() < 0.5:
        asked = say(rng, ("And the {shape}?", "What about the {shape}?"), shape=other.name)
        follow = (Turn("follow_up", asked, other.colour),)
    elif rng.random() < 0.2:
        asked = say(rng, ("Where is it?", "And where is it?"))
        follow = (Turn("follow_up", asked, position(one)),)
    return Turn("colour", say(rng, ways, shape=one.name), one.colour, follow_ups=follow)


def _count_all(rng: np.random.Generator, facts: Shapes) -> Turn:
    ways = (
        "How many shapes are there?", "How many shapes do you see?", "Count the shapes.",
        "How many things are in the picture?", "How many shapes does the picture show?",
        "How many objects are there?",
    )  # fmt: skip
    return Turn("count", say(rng, ways), str(len(facts.shapes)))


def _count_some(rng: np.random.Generator, facts: Shapes) -> Turn:
    ways = (
        "How many {them} are there?", "How many {them} do you see?", "Count the {them}.",
        "How many {them} are in the picture?", "How many {them} does the picture show?",
    )  # fmt: skip
    by_colour = rng.random() < 0.4
    kinds = [shape.colour if by_colour else shape.name for shape in facts.shapes]
    kind = pick(rng, COLOURS if by_colour else SHAPES) if rng.random() < 0.15 else pick(rng, kinds)
    them = f"{kind} shapes" if by_colour else plural(kind)
    follow: tuple[Turn, ...] = ()
    if rng.random() < 0.3:
        other = pick(rng, kinds if rng.random() < 0.7 else (COLOURS if by_colour else SHAPES))
        also = f"{other} ones" if by_colour else plural(other)
        asked = say(rng, ("And {also}?", "And how many {also}?"), also=also)
        follow = (Turn("follow_up", asked, str(kinds.count(other))),)
    return Turn("count", say(rng, ways, them=them), str(kinds.count(kind)), follow_ups=follow)


def _where(rng: np.random.Generator, facts: Shapes) -> Turn | None:
    one = _unlike(rng, facts.shapes, lambda shape: shape.name)
    what = one.name if one else ""
    if one is None or rng.random() < 0.3:
        one = _unlike(rng, facts.shapes, lambda shape: shape.colour)
        what = f"{one.colour} shape" if one else ""
    if one is None:
        return None
    ways = (
        "Where is the {what}?", "Where in the picture is the {what}?",
        "In which part of the picture is the {what}?", "Where do you see the {what}?",
    )  # fmt: skip
    return Turn("position", say(rng, ways, what=what), position(one))


def _extreme(rng: np.random.Generator, facts: Shapes) -> Turn | None:
    """The shape furthest to one side, where it is clearly so."""
    if len(facts.shapes) < 2:
        return None
    axis, sign = int(rng.integers(2)), int(rng.choice([-1, 1]))
    ordered = sorted(facts.shapes, key=lambda shape: sign * shape.box.centre[axis])
    first, second = (shape.box.centre[axis] for shape in ordered[:2])
    if abs(first - second) < 10:
        return None
    side = (("rightmost", "leftmost"), ("lowest", "highest"))[axis][sign > 0]
    if rng.random() < 0.5:
        ways: tuple[str, ...] = (
            "Which shape is {side}?",
            "What is the {side} shape?",
            "Name the {side} shape.",
        )
        return Turn("shape", say(rng, ways, side=side), ordered[0].name)
    ways = ("What colour is the {side} shape?", "Which colour has the {side} shape?")
    return Turn("colour", say(rng, ways, side=side), ordered[0].colour)


def _present(rng: np.random.Generator, facts: Shapes) -> Turn:
    shape = facts.shapes[int(rng.integers(len(facts.shapes)))]
    name, colour = shape.name, shape.colour
    if rng.random() < 0.5:
        if rng.random() < 0.5:
            name = pick(rng, SHAPES)
        else:
            colour = pick(rng, COLOURS)
    ways = ("Is there {it}?", "Do you see {it}?", "Is there {it} in the picture?")
    if rng.random() < 0.5:
        there = any(other.name == name and other.colour == colour for other in facts.shapes)
        it = article(f"{colour} {name}")
    else:
        there, it = any(other.name == name for other in facts.shapes), article(name)
    return Turn("presence", say(rng, ways, it=it), "yes" if there else "no")


def _describe(rng: np.random.Generator, facts: Shapes) -> Turn | None:
    """From left to right, where that is clear."""
    ordered = sorted(facts.shapes, key=lambda shape: shape.box.centre[0])
    across = [shape.box.centre[0] for shape in ordered]
    gaps = [right - left for left, right in pairwise(across)]
    if len(ordered) > 4 or min(gaps, default=99) < 8:
        return None
    ways = (
        "What is in this picture?", "Describe the picture.", "What do you see?",
        "What does the picture show?", "Describe this picture.", "What is in the picture?",
    )  # fmt: skip
    parts = [article(f"{shape.colour} {shape.name}") for shape in ordered]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return Turn("description", say(rng, ways), f"{listed[0].upper()}{listed[1:]}.")


def _json(rng: np.random.Generator, facts: Shapes) -> Turn | None:
    shapes = facts.shapes
    if len(shapes) == 1:
        shape = shapes[0]
        known: dict[str, object] = {
            "shape": shape.name, "colour": shape.colour, "position": position(shape), "count": 1,
        }  # fmt: skip
    else:
        known = {"count": len(shapes)}
        one = _unlike(rng, shapes, lambda shape: shape.colour)
        if one is not None and rng.random() < 0.6:
            ways: tuple[str, ...] = (
                "Give the {colour} shape as JSON with the keys {keys}.",
                "Describe the {colour} shape as JSON with {keys}.",
            )  # fmt: skip
            known = {"shape": one.name, "position": position(one), "colour": one.colour}
            keys = _keys(rng, known)
            asked = say(rng, ways, colour=one.colour, keys=_listed(keys))
            return Turn("json", asked, json.dumps({key: known[key] for key in keys}))
    keys = _keys(rng, known)
    ways = (
        "Answer as JSON with the keys {keys}.", "Give {keys} as JSON.", "JSON with {keys}, please.",
        "Describe the picture as JSON with the keys {keys}.", "Return JSON with {keys}.",
    )  # fmt: skip
    asked = say(rng, ways, keys=_listed(keys))
    return Turn("json", asked, json.dumps({key: known[key] for key in keys}))


def _keys(rng: np.random.Generator, known: dict[str, object]) -> list[str]:
    count = int(rng.integers(1, len(known) + 1))
    if rng.random() < 0.5:
        return list(known)[:count]
    return [str(key) for key in rng.choice(list(known), count, replace=False)]


def _listed(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} and {keys[-1]}"


def _unlike(
    rng: np.random.Generator, shapes: tuple[Shape, ...], what: Callable[[Shape], str]
) -> Shape | None:
    """One that no other is like."""
    seen = [what(shape) for shape in shapes]
    alone = [shape for shape in shapes if seen.count(what(shape)) == 1]
    return alone[int(rng.integers(len(alone)))] if alone else None


def _at(place: str) -> str:
    return "in the centre" if place == "centre" else f"at the {place}"
