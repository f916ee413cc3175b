"""How an answer is graded against the right ones: 0 to 1, the best of several right ones.

exact     equal, but for case, space and a final full stop
relaxed   as ChartQA (Masry et al., 2022): a number may be off by 5 %, anything else is exact
anls      as DocVQA (Biten et al., 2019): 1 - edit distance / length of the longer where that
          quotient is below 0.5, else 0
json      the same JSON value: order of keys and space do not count
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Literal

MetricName = Literal["exact", "relaxed", "anls", "json"]

_TOLERANCE = 0.05
_THRESHOLD = 0.5


def exact(answer: str, right: Sequence[str]) -> float:
    """
    >>> exact(" Red. ", ["blue", "red"])
    1.0
    """
    return float(_plain(answer) in {_plain(each) for each in right})


def relaxed(answer: str, right: Sequence[str]) -> float:
    """
    >>> relaxed("102", ["100"]), relaxed("106", ["100"]), relaxed("9.5 %", ["9.6%"])
    (1.0, 0.0, 1.0)
    """
    return max(_relaxed(answer, each) for each in right)


def anls(answer: str, right: Sequence[str]) -> float:
    """Average normalised Levenshtein similarity, of one answer.

    >>> anls("kitten", ["sitting"]), anls("cat", ["dog"])
    (0.5714285714285714, 0.0)
    """
    return max(_similarity(_folded(answer), _folded(each)) for each in right)


def same_json(answer: str, right: Sequence[str]) -> float:
    """
    >>> same_json('{"a": 1, "b": 2}', ['{"b":2,"a":1}']), same_json("a: 1", ['{"a": 1}'])
    (1.0, 0.0)
    """
    try:
        value = json.loads(answer)
    except ValueError:
        return 0.0
    return float(any(value == json.loads(each) for each in right))


METRICS: dict[MetricName, Callable[[str, Sequence[str]], float]] = {
    "exact": exact,
    "relaxed": relaxed,
    "anls": anls,
    "json": same_json,
}


def distance(one: str, other: str) -> int:
    """Levenshtein: how many letters are added, left out or exchanged at least."""
    before = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        here = [row]
        for column, opposite in enumerate(other, start=1):
            exchanged = before[column - 1] + (letter != opposite)
            here.append(min(before[column] + 1, here[column - 1] + 1, exchanged))
        before = here
    return before[-1]


def _relaxed(answer: str, right: str) -> float:
    wanted, given = _number(right), _number(answer)
    # Nothing is within a share of 0: it is compared as text, as the published code does.
    if not wanted or given is None:
        return exact(answer, [right])
    return float(abs(given - wanted) / abs(wanted) <= _TOLERANCE)


def _similarity(answer: str, right: str) -> float:
    longer = max(len(answer), len(right))
    if longer == 0:
        return 1.0
    apart = distance(answer, right) / longer
    return 1 - apart if apart < _THRESHOLD else 0.0


def _plain(text: str) -> str:
    return _folded(text).removesuffix(".")


def _folded(text: str) -> str:
    return " ".join(text.lower().split())


def _number(text: str) -> float | None:
    """ChartQA's reading: a percentage is a hundredth of its number."""
    text = _plain(text)
    try:
        if text.endswith("%"):
            return float(text.removesuffix("%")) / 100
        return float(text)
    except ValueError:
        return None
