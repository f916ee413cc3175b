"""Loads in turn, round after round, and what they come to together.

A shared machine has fast and slow phases of seconds: what is to be compared is measured in turn, so
that each phase meets all of it. Percentiles are of all rounds' requests pooled, as the 99th of a
few hundred is a handful of them; rates are the median round's.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from ops.bench.engine.run import interleaved
from ops.bench.load import Measured, percentile


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of a load; ``cpu_s`` is what everything that served it used."""

    measured: Measured
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Row:
    """One application under one load, over all rounds.

    ``requests`` were answered and are what the percentiles (of the time to the first event) are of;
    ``p99_of_rounds`` is the least and the greatest of a single round, in ms.
    """

    what: str
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    p99_of_rounds: str
    tokens_per_s: float
    cpu_ms_per_request: float
    failed: int
    beside: str = ""

    def compared(self, ratio: float, of_what: str) -> Row:
        return replace(self, beside=f"{ratio:.2f} x {of_what}")


def in_turn(rounds: int, loads: Mapping[str, Callable[[], Sample]], tokens: int) -> tuple[Row, ...]:
    """A row for each, in order; ``tokens`` are those of an answer. A first round does not count."""
    runs = {what: _ignoring_the_round(load) for what, load in loads.items()}
    return tuple(row(what, found, tokens) for what, found in interleaved(rounds, runs).items())


def row(what: str, rounds: Sequence[Sample], tokens: int) -> Row:
    measured = [sample.measured for sample in rounds]
    answered = sum(each.answered for each in measured)
    first = sorted(second for each in measured for second in each.first)
    p99s = [1e3 * percentile(each.first, 99) for each in measured]
    per_second = statistics.median(each.per_second for each in measured)
    return Row(
        what,
        requests=answered,
        requests_per_s=per_second,
        p50_ms=1e3 * percentile(first, 50),
        p99_ms=1e3 * percentile(first, 99),
        p99_of_rounds=f"{min(p99s):.0f} to {max(p99s):.0f}",
        tokens_per_s=per_second * tokens,
        cpu_ms_per_request=1e3 * sum(sample.cpu_s for sample in rounds) / answered,
        failed=sum(each.failed for each in measured),
    )


def _ignoring_the_round(load: Callable[[], Sample]) -> Callable[[int], Sample]:
    return lambda _: load()
