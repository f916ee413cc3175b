"""Words to print: common English ones of up to eight letters, and made-up ones.

The words of the validation and test sets are never drawn, nor asked for, in training.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np

from ops.nano.drawing.split import Split

COMMON = tuple(Path(__file__).with_name("words.txt").read_text(encoding="utf-8").split())
_SHARES: dict[Split, range] = {
    "train": range(90),
    "validation": range(90, 94),
    "test": range(94, 100),
}
_CONSONANTS, _VOWELS = "bcdfghjklmnpqrstvwxz", "aeiouy"


@cache
def common(split: Split) -> tuple[str, ...]:
    """The words of one split; every word is of exactly one."""
    return tuple(word for word in COMMON if _hundredth(word) in _SHARES[split])


def made_up(rng: np.random.Generator, split: Split, length: int) -> str:
    """A word nobody knows, of one split: half of them can be spoken, half are any letters."""
    while True:
        if rng.random() < 0.5:
            start = rng.integers(2)
            word = "".join(
                _pick(rng, _VOWELS if (start + place) % 2 else _CONSONANTS)
                for place in range(length)
            )
        else:
            word = "".join(chr(ord("a") + int(rng.integers(26))) for _ in range(length))
        if _hundredth(word) in _SHARES[split]:
            return word


def _pick(rng: np.random.Generator, letters: str) -> str:
    return letters[int(rng.integers(len(letters)))]


def _hundredth(word: str) -> int:
    return hashlib.sha256(word.encode()).digest()[0] * 100 // 256
