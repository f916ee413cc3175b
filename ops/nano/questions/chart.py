"""Questions about a bar chart."""

from __future__ import annotations

import json

import numpy as np

from ops.nano.drawing.chart import Bar, Chart
from ops.nano.questions.turn import Turn, say


def chart_turns(rng: np.random.Generator, facts: Chart, count: int) -> list[Turn]:
    bars = facts.bars
    turns = [
        _tallest(rng, facts), _shortest(rng, facts), _end(rng, facts), _count(rng, facts),
        _colour(rng, bars[int(rng.integers(len(bars)))]), _json(rng, facts),
    ]  # fmt: skip
    if facts.values_shown:
        turns += [_value(rng, bars[place]) for place in rng.permutation(len(bars))[:3]]
        turns.append(_extreme_value(rng, facts))
    else:
        turns.append(_tallest(rng, facts))
    order = rng.permutation(len(turns))
    return [turns[place] for place in order][:count]


def _tallest(rng: np.random.Generator, facts: Chart) -> Turn:
    ways = (
        "Which bar is the tallest?", "What is the tallest bar?", "Which bar is highest?",
        "Which one is the largest?", "Which bar has the highest value?", "Name the tallest bar.",
    )  # fmt: skip
    label = max(facts.bars, key=lambda bar: bar.value).label
    return Turn("chart", say(rng, ways), label, (label,))


def _shortest(rng: np.random.Generator, facts: Chart) -> Turn:
    ways = (
        "Which bar is the shortest?", "What is the shortest bar?", "Which bar is lowest?",
        "Which one is the smallest?", "Which bar has the lowest value?", "Name the shortest bar.",
    )  # fmt: skip
    label = min(facts.bars, key=lambda bar: bar.value).label
    return Turn("chart", say(rng, ways), label, (label,))


def _end(rng: np.random.Generator, facts: Chart) -> Turn:
    first = rng.random() < 0.5
    ways = (
        ("What is the leftmost bar?", "What is the first bar?", "Which bar is leftmost?")
        if first
        else ("What is the rightmost bar?", "What is the last bar?", "Which bar is rightmost?")
    )
    label = facts.bars[0 if first else -1].label
    return Turn("chart", say(rng, ways), label, (label,))


def _count(rng: np.random.Generator, facts: Chart) -> Turn:
    ways = (
        "How many bars are there?", "How many bars do you see?", "Count the bars.",
        "How many bars does the chart have?",
    )  # fmt: skip
    return Turn("count", say(rng, ways), str(len(facts.bars)))


def _colour(rng: np.random.Generator, bar: Bar) -> Turn:
    ways = (
        "What colour is the {label} bar?", "What colour is {label}?", "Which colour has {label}?",
        "What color is the bar of {label}?",
    )  # fmt: skip
    return Turn("colour", say(rng, ways, label=bar.label), bar.colour)


def _value(rng: np.random.Generator, bar: Bar) -> Turn:
    ways = (
        "What is the value of {label}?", "How much is {label}?", "What value has {label}?",
        "What is the value of the {label} bar?", "Value of {label}?", "How high is {label}?",
    )  # fmt: skip
    value = str(bar.value)
    return Turn("chart", say(rng, ways, label=bar.label), value, (value,))


def _extreme_value(rng: np.random.Generator, facts: Chart) -> Turn:
    values = [bar.value for bar in facts.bars]
    if rng.random() < 0.5:
        asked, value = "What is the highest value?", str(max(values))
    else:
        asked, value = "What is the lowest value?", str(min(values))
    return Turn("chart", say(rng, (asked,)), value, (value,))


def _json(rng: np.random.Generator, facts: Chart) -> Turn:
    ways = (
        "Give {keys} as JSON.", "Answer as JSON with the keys {keys}.", "Return JSON with {keys}.",
        "JSON with {keys}, please.",
    )  # fmt: skip
    tallest = max(facts.bars, key=lambda bar: bar.value).label
    known: dict[str, object] = {"tallest": tallest, "bars": len(facts.bars)}
    keys = [str(key) for key in rng.permutation(list(known))[: int(rng.integers(1, 3))]]
    spelled = (tallest,) if "tallest" in keys else ()
    answer = json.dumps({key: known[key] for key in keys})
    return Turn("json", say(rng, ways, keys=" and ".join(keys)), answer, spelled)
