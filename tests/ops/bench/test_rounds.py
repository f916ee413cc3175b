"""What rounds come to together: nothing here is timed."""

from __future__ import annotations

import math
from functools import partial

import pytest

from ops.bench.load import Measured, percentile
from ops.bench.rounds import Sample, in_turn


def sample(*first_ms: float, seconds: float = 1.0, failed: int = 0) -> Sample:
    first = tuple(sorted(ms / 1e3 for ms in first_ms))
    return Sample(Measured(len(first), failed, seconds, first, len(first), 0), cpu_s=0.5)


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_a_percentile_is_the_nearest_rank(percent, expected):
    assert percentile(tuple(range(1, 101)), percent) == expected


def test_nothing_has_no_percentile():
    assert math.isnan(percentile((), 99))


def test_rounds_are_taken_in_turn_and_the_first_does_not_count():
    order = []
    found = {
        "bare": [sample(999), sample(*[10] * 99, 20), sample(*[10] * 99, 400), sample(30)],
        "ours": [sample(999, failed=7), sample(5), sample(15, 25, seconds=0.5), sample(35)],
    }
    left = {name: iter(samples) for name, samples in found.items()}

    def load(name: str) -> Sample:
        order.append(name)
        return next(left[name])

    bare, ours = in_turn(3, {name: partial(load, name) for name in left}, 16)
    assert order == ["bare", "ours"] * 4
    # Two of all 201 may be slower than the 99th percentile: 400 and 30 are.
    assert (bare.requests, bare.p50_ms, bare.p99_ms) == (201, 10, 20)
    assert bare.p99_of_rounds == "10 to 30"
    assert (ours.requests, ours.requests_per_s, ours.tokens_per_s) == (4, 1, 16)
    assert (ours.failed, ours.cpu_ms_per_request) == (0, 375)
    assert ours.compared(2, "bare").beside == "2.00 x bare"
