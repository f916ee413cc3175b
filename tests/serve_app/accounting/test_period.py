"""Days and months as people give them."""

from __future__ import annotations

import pytest

from serve_app.accounting.period import Period, checked_month, month_bounds
from serve_app.errors import InvalidRequest

TODAY = "2026-11-23"


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, ("2026-11-01", "2026-11-23")),
        ("2026-02", None, ("2026-02-01", "2026-11-23")),
        (None, "2026-11-05", ("2026-11-01", "2026-11-05")),
        ("2024-02", "2024-02", ("2024-02-01", "2024-02-29")),
        ("2026-11-23", "2026-11-23", ("2026-11-23", "2026-11-23")),
        ("2026-12", None, ("2026-12-01", "2026-12-01")),
    ],
)
def test_a_period(first, last, expected):
    assert Period.parse(first, last, TODAY) == Period(*expected)


@pytest.mark.parametrize(
    ("first", "last", "param"),
    [
        ("2026-02-30", None, "from"),
        ("2026-13", None, "from"),
        ("yesterday", None, "from"),
        ("2026-1-1", None, "from"),
        ("²026-01-01", None, "from"),
        ("9999-12", None, "from"),
        (None, "2026-11-1", "to"),
        ("2026-12", "2026-11", "from"),
    ],
)
def test_what_is_no_period_is_refused_by_name(first, last, param):
    with pytest.raises(InvalidRequest) as refusal:
        Period.parse(first, last, TODAY)
    assert refusal.value.param == param


def test_a_period_ends_where_its_last_day_does():
    day = Period("1970-01-02", "1970-01-02")
    assert (day.start_us, day.end_us) == (86_400_000_000, 2 * 86_400_000_000)


def test_months():
    assert month_bounds("2026-02") == ("2026-02-01", "2026-03-01")
    assert checked_month("2026-02") == "2026-02"
    for wrong in ("2026-2", "2026-02-01", "2026-13", ""):
        with pytest.raises(InvalidRequest):
            checked_month(wrong)
