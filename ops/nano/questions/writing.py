"""Questions about printed words and numbers."""

from __future__ import annotations

import json

import numpy as np

from ops.nano.drawing.writing import Line, Writing
from ops.nano.questions.turn import Turn, pick, say

_PLACES = ("first", "second", "third")


def writing_turns(rng: np.random.Generator, facts: Writing, count: int) -> list[Turn]:
    lines = facts.lines
    turns = [_read(rng, facts)]
    if len(lines) > 1:
        turns.append(_count(rng, facts))
        turns += [_line(rng, facts, place) for place in range(len(lines))]
    else:
        turns += [_letter(rng, lines[0]) for _ in range(2)]
        turns += [_length(rng, lines[0]), _json(rng, lines[0])]
    return [turns[place] for place in rng.permutation(len(turns))[:count]]


def _read(rng: np.random.Generator, facts: Writing) -> Turn:
    ways: tuple[str, ...] = (
        "What does it say?", "Read the text.", "What is written here?", "Read this.",
        "What does the picture say?", "What text is in the picture?", "What is the text?",
    )  # fmt: skip
    kinds = {line.kind for line in facts.lines}
    task = "number" if kinds == {"number"} else "word"
    if len(facts.lines) == 1 and rng.random() < 0.5:
        ways = (
            "What {kind} is this?", "What {kind} is written here?", "Read the {kind}.",
            "Which {kind} do you see?", "What is the {kind}?", "What {kind} is in the picture?",
        )  # fmt: skip
    texts = tuple(line.text for line in facts.lines)
    return Turn(task, say(rng, ways, kind=facts.lines[0].kind), " ".join(texts), texts)


def _line(rng: np.random.Generator, facts: Writing, place: int) -> Turn:
    line = facts.lines[place]
    named = _PLACES[place]
    if place == len(facts.lines) - 1 and rng.random() < 0.5:
        named = "last"
    ways = (
        "What is the {named} line?", "Read the {named} line.", "What does the {named} line say?",
        "What is written in the {named} line?",
    )  # fmt: skip
    return Turn(line.kind, say(rng, ways, named=named), line.text, (line.text,))


def _count(rng: np.random.Generator, facts: Writing) -> Turn:
    ways = ("How many lines are there?", "How many lines of text do you see?", "Count the lines.")
    return Turn("count", say(rng, ways), str(len(facts.lines)))


def _length(rng: np.random.Generator, line: Line) -> Turn:
    unit = "digits" if line.kind == "number" else "letters"
    ways = ("How many {unit} does the {kind} have?", "How many {unit} are there?")
    return Turn("letter", say(rng, ways, unit=unit, kind=line.kind), str(len(line.text)))


def _letter(rng: np.random.Generator, line: Line) -> Turn:
    unit = "digit" if line.kind == "number" else "letter"
    named = ("first", "second", "third", "fourth", "last")
    place = int(rng.integers(min(len(line.text), 4)))
    word = named[place]
    if rng.random() < 0.25:
        place, word = len(line.text) - 1, "last"
    ways = ("What is the {word} {unit}?", "Which {unit} is {word}?", "Name the {word} {unit}.")
    letter = line.text[place]
    return Turn("letter", say(rng, ways, word=word, unit=unit), letter, (letter,))


def _json(rng: np.random.Generator, line: Line) -> Turn:
    key = pick(rng, ("text", line.kind))
    ways = (
        "Answer as JSON with the key {key}.", "Give {key} as JSON.", "Return JSON with {key}.",
        "JSON with {key}, please.",
    )  # fmt: skip
    answer = json.dumps({key: line.text})
    return Turn("json", say(rng, ways, key=key), answer, (line.text,))
