"""A question and its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TASKS = (
    "shape", "colour", "count", "position", "presence", "description", "word", "number", "letter",
    "receipt", "chart", "json", "follow_up", "comparison", "no_picture",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """One exchange.

    Attributes:
        spelled: parts of the answer that are copied from the picture, in the order in which they
            come: the model writes them letter by letter.
        follow_ups: exchanges that make sense only right after it.
    """

    task: str
    question: str
    answer: str
    spelled: tuple[str, ...] = ()
    follow_ups: tuple[Turn, ...] = ()


def say(rng: np.random.Generator, ways: Sequence[str], **names: object) -> str:
    """One of the ways to put something, as people type it."""
    words = ways[int(rng.integers(len(ways)))].format(**names)
    if rng.random() < 0.1:
        words = words.rstrip("?.")
    if rng.random() < 0.1:
        words = words[0].lower() + words[1:]
    elif rng.random() < 0.07:
        words = f"Please: {words}" if words.endswith("?") else f"{words} Thank you."
    return words


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
