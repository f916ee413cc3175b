"""Dollars and tables as people see them."""

from __future__ import annotations

import pytest

from ops.admin.text import dollars, table, typed_count, typed_dollars
from ops.problem import Problem


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0", "$0.00"),
        ("1234.5", "$1,234.50"),
        ("-0.00000015", "-$0.00000015"),
        ("999999999.999999999", "$999,999,999.999999999"),
        ("288.000000000", "$288.00"),
        (None, "-"),
    ],
)
def test_dollars(usd, shown):
    assert dollars(usd) == shown


@pytest.mark.parametrize(
    ("typed", "usd"),
    [("$1,234.50", "1234.50"), ("0.000000001", "0.000000001"), ("7", "7"), ("1234", "1234")],
)
def test_typed_dollars(typed, usd):
    assert typed_dollars(typed, "AMOUNT") == usd


@pytest.mark.parametrize(
    "typed", ["", "1e3", "-1", "1,23", "1.0000000001", "£5", "1.", ".5", "NaN", "٣"]
)
def test_what_is_no_amount_is_refused(typed):
    with pytest.raises(Problem, match="--budget"):
        typed_dollars(typed, "--budget")


def test_typed_counts():
    assert typed_count("1,000", "--rpm") == 1000
    assert typed_count("none", "--rpm") is None
    for wrong in ("1.5", "-1", "", "²"):
        with pytest.raises(Problem, match="--rpm"):
            typed_count(wrong, "--rpm")


def test_a_table_is_aligned_and_sends_no_control_characters():
    shown = table(("name", "tokens"), [("a\x1b[2J", "1,000"), ("longer name", "-")])
    assert shown.splitlines() == [
        "name         tokens",
        "a\\x1b[2J      1,000",
        "longer name       -",
    ]
    assert table(("name",), []) == "name"
