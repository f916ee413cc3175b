from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.accounting.money import (
    format_usd,
    nano_usd_per_token,
    parse_usd,
    usd_per_million,
)
from serve_app.errors import InvalidRequest

NANO = Decimal("1e-9")
BILLION_USD = 10**18


@given(st.integers(min_value=-(2**63), max_value=2**63))
def test_formatting_is_exact_and_plain(nano_usd: int) -> None:
    text = format_usd(nano_usd)
    assert Decimal(text) == nano_usd * NANO
    assert "e" not in text.lower()
    assert not ("." in text and text.endswith("0"))


@given(st.integers(min_value=1 - BILLION_USD, max_value=BILLION_USD - 1))
def test_what_is_formatted_parses_to_the_same(nano_usd: int) -> None:
    assert parse_usd(format_usd(nano_usd), param="x") == nano_usd


@given(st.decimals(0, 10**8, places=9))
def test_parsing_agrees_with_decimal_arithmetic(amount: Decimal) -> None:
    assert parse_usd(f"{amount:f}", param="x") == amount / NANO


NO_AMOUNTS = ["", " ", "1e3", "0.0000000001", "1000000000", "1,5", "$1", "+1", ".5", "1.", "1\n"]


@pytest.mark.parametrize("text", [*NO_AMOUNTS, "١", "nan", "--1"])
def test_what_is_no_exact_amount_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest, match="budget_usd") as caught:
        parse_usd(text, param="budget_usd")
    assert caught.value.param == "budget_usd"


@pytest.mark.parametrize(
    ("quoted", "nano_usd"), [("2", 2_000), ("6.00", 6_000), ("0.15", 150), ("0", 0), ("0.001", 1)]
)
def test_a_price_per_million_is_a_whole_number_per_token(quoted: str, nano_usd: int) -> None:
    assert nano_usd_per_token(quoted, param="input") == nano_usd
    assert Decimal(usd_per_million(nano_usd)) == Decimal(quoted)


@pytest.mark.parametrize("quoted", ["0.0001", "2.0005", "-1", "cheap"])
def test_a_price_that_would_need_rounding_is_refused(quoted: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        nano_usd_per_token(quoted, param="output")
    assert caught.value.param == "output"
