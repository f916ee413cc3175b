"""Token buckets: exact, integer, and never in the caller's favour."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.accounting.rates import MILLIONTHS, Bucket, tightest

MINUTE_US = 60_000_000
LIMITS = st.integers(1, 10**12)
TIMES = st.integers(0, 10 * MINUTE_US)


def bucket(limit: int | None, used: int = 0, at_us: int = 0) -> Bucket:
    return Bucket(limit, used * MILLIONTHS, at_us)


def test_a_full_bucket_drains_in_a_minute():
    full = bucket(60, used=60)
    assert full.wait_us(1, 0) == 1_000_000
    assert full.wait_us(60, 0) == MINUTE_US
    assert full.wait_us(1, 1_000_000) == 0
    assert full.wait_us(60, MINUTE_US) == 0


def test_without_a_limit_nothing_is_counted():
    free = bucket(None)
    assert free.fits_ever(10**15)
    assert free.wait_us(10**15, 0) == 0
    assert free.taken(10**15, 5) == free
    assert free.allowance(0) is None


def test_what_is_larger_than_the_bucket_never_fits():
    assert bucket(10).fits_ever(10)
    assert not bucket(10).fits_ever(11)
    assert not bucket(0).fits_ever(1)


def test_what_was_not_used_can_be_taken_again_and_nothing_more():
    taken = bucket(100).taken(80, 0).given_back(50, 0)
    assert taken.wait_us(70, 0) == 0
    assert taken.wait_us(71, 0) > 0
    # In the meantime it has drained: what is given back cannot make room that was never there.
    assert bucket(100).taken(80, 0).given_back(80, MINUTE_US).used == 0


def test_a_clock_that_is_behind_drains_nothing_twice():
    taken = bucket(60).taken(60, MINUTE_US)
    behind = taken.given_back(0, 0)
    assert behind == taken
    assert behind.wait_us(1, MINUTE_US) == 1_000_000


def test_the_allowance_rounds_down_and_tells_when_the_bucket_is_full_again():
    allowance = bucket(60, used=30).allowance(500_000)
    assert allowance is not None
    assert (allowance.limit, allowance.remaining, allowance.reset_s) == (60, 30, 29.5)
    assert allowance == tightest([None, bucket(100).allowance(0), allowance])
    assert tightest([None, None]) is None


@pytest.mark.parametrize("limit", [7, 59, 61, 999_983])
def test_odd_limits_wait_to_the_microsecond(limit):
    full = bucket(limit, used=limit)
    wait = full.wait_us(1, 0)
    assert full.wait_us(1, wait) == 0
    assert full.wait_us(1, wait - 1) > 0


@given(limit=LIMITS, used=st.integers(0, 10**12), units=st.integers(1, 10**12), at=TIMES)
def test_the_wait_is_exact(limit, used, units, at):
    units = min(units, limit)
    full = bucket(limit, used=min(used, limit))
    wait = full.wait_us(units, at)
    assert wait <= MINUTE_US
    assert full.wait_us(units, at + wait) == 0
    if wait:
        assert full.wait_us(units, at + wait - 1) > 0


@given(
    limit=st.integers(1, 1000),
    asked=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 1000)), max_size=30),
)
def test_no_sequence_of_requests_gets_more_than_the_rate_allows(limit, asked):
    """Against exact fractions: a bucket full at the start and what drains since, no unit more."""
    state, now, admitted = bucket(limit), 0, 0
    for pause, units in asked:
        now += pause
        if state.fits_ever(units) and state.wait_us(units, now) == 0:
            state = state.taken(units, now)
            admitted += units
        assert admitted <= limit + Fraction(limit * now, MINUTE_US)


@given(limit=LIMITS, pauses=st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_looking_often_loses_less_than_a_unit(limit, pauses):
    """Rounding is the caller's loss, by a millionth of a unit for each time it is looked at."""
    state, now = bucket(limit, used=limit), 0
    for pause in pauses:
        now += pause
        state = state.taken(0, now)
    exact = max(Fraction(0), Fraction(limit) - Fraction(limit * now, MINUTE_US))
    assert 0 <= Fraction(state.used, MILLIONTHS) - exact < 1
