"""One timed run of some requests, and the times of several such runs side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ops.bench.engine.prompts import Prompt

T = TypeVar("T")
Tokens = tuple[tuple[int, ...], ...]


class TokensDifferError(Exception):
    """Two that should say the same do not: what they took cannot be compared."""


@dataclass(frozen=True, slots=True)
class Run:
    """What some requests, sent at once, were answered and when.

    Attributes:
        tokens: per request.
        moments: (seconds since they were sent, tokens drawn then), in order.
        begun_s: when each of them had a token.
    """

    tokens: Tokens
    moments: tuple[tuple[float, int], ...]
    begun_s: float

    @property
    def count(self) -> int:
        return sum(map(len, self.tokens))

    @property
    def first_s(self) -> float:
        """Until the first token of any of them."""
        return self.moments[0][0]

    @property
    def total_s(self) -> float:
        return self.moments[-1][0]

    @property
    def tokens_per_s(self) -> float:
        """All tokens over all the time, prefill and pictures included."""
        return self.count / self.total_s

    @property
    def decode_tokens_per_s(self) -> float:
        """Of those that came after all requests had one."""
        return self.decoded / (self.total_s - self.begun_s)

    @property
    def decode_steps(self) -> int:
        return sum(at > self.begun_s for at, _ in self.moments)

    @property
    def decode_steps_per_s(self) -> float:
        return self.decode_steps / (self.total_s - self.begun_s)

    @property
    def decoded(self) -> int:
        return sum(drawn for at, drawn in self.moments if at > self.begun_s)


@dataclass(frozen=True, slots=True)
class Spread:
    """The best and the median of several measurements of one thing."""

    best: float
    median: float

    @classmethod
    def most(cls, values: Sequence[float]) -> Spread:
        """More is better."""
        return cls(max(values), statistics.median(values))

    @classmethod
    def least(cls, values: Sequence[float]) -> Spread:
        """Less is better."""
        return cls(min(values), statistics.median(values))


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to measure.

    Attributes:
        repeats: of each run; the best and the median are told.
        new_tokens: per answer.
        text_tokens: of a prompt, beside its picture.
        small_side, side: of the pictures, in pixels: of sixteen at once, and of one alone.
        flood: requests of the team that floods.
        soak: random requests.
    """

    repeats: int = 3
    new_tokens: int = 32
    text_tokens: int = 32
    small_side: int = 256
    side: int = 512
    flood: int = 50
    soak: int = 2000
    threads: int = 2
    say: Callable[[str], None] = field(default=lambda _: None, compare=False)


QUICK = Budget(repeats=1, new_tokens=8, small_side=64, side=256, flood=16, soak=200)


def interleaved(repeats: int, runs: Mapping[str, Callable[[int], T]]) -> dict[str, list[T]]:
    """Each run in turn, ``repeats`` times: what slows the machine for a while slows them all.

    Args:
        runs: are told their repetition's number, to ask something new each time; 0 is a warm-up
            whose result is left out.
    """
    results: dict[str, list[T]] = {name: [] for name in runs}
    for number in range(repeats + 1):
        for name, run in runs.items():
            result = run(number)
            if number:
                results[name].append(result)
    return results


def require_equal(what: str, ours: Tokens, theirs: Tokens) -> None:
    """Raises TokensDifferError: naming the first request and place at which they part."""
    if len(ours) != len(theirs):
        raise TokensDifferError(f"{what}: {len(ours)} answers beside {len(theirs)}")
    for number, (mine, yours) in enumerate(zip(ours, theirs, strict=True)):
        if mine == yours:
            continue
        at = next(
            (at for at, pair in enumerate(zip(mine, yours, strict=False)) if pair[0] != pair[1]),
            min(len(mine), len(yours)),
        )
        raise TokensDifferError(
            f"{what}: answer {number} parts at its token {at}: {mine[at : at + 4]} beside"
            f" {yours[at : at + 4]}"
        )


def prompts_of(make: Callable[[int], Prompt], count: int) -> Callable[[int], list[Prompt]]:
    """``count`` prompts for each repetition, none of them ever asked before: a prefix cache has
    nothing to find."""
    return lambda repetition: [make(repetition * count + number) for number in range(count)]
