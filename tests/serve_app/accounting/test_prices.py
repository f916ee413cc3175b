from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.accounting.cost import cost_of
from serve_app.accounting.money import format_usd
from serve_app.accounting.prices import listed_price
from serve_app.config import Model, Price, parse_config


def model(name: str, **fields: object) -> Model:
    return parse_config({"model": {"path": "/models/x", "name": name, **fields}}).model


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cost_is_the_sum_of_its_parts(
    input_price: int, output_price: int, input_tokens: int, output_tokens: int
) -> None:
    price = Price(input_nano_usd_per_token=input_price, output_nano_usd_per_token=output_price)
    cost = cost_of(price, input_tokens, output_tokens)
    total = Decimal(format_usd(cost.input_nano_usd)) + Decimal(format_usd(cost.output_nano_usd))
    assert Decimal(format_usd(cost.total_nano_usd)) == total
    assert cost.total_nano_usd == input_price * input_tokens + output_price * output_tokens


@pytest.mark.parametrize(
    ("name", "usd_in", "usd_out", "basis"),
    [
        ("Pixtral-Large-Instruct-2411", "2", "6", "list price of Pixtral Large"),
        ("pixtral-12b-2409", "0.15", "0.15", "list price of Pixtral 12B"),
        ("Pixtral-12B", "0.15", "0.15", "list price of Pixtral 12B"),
        ("nano", "2", "6", "no price of its own: charged as Pixtral Large"),
    ],
)
def test_a_million_tokens_cost_what_mistral_lists(
    name: str, usd_in: str, usd_out: str, basis: str
) -> None:
    listed = listed_price(model(name))
    million = cost_of(listed.price, 10**6, 10**6)
    assert format_usd(million.input_nano_usd) == usd_in
    assert format_usd(million.output_nano_usd) == usd_out
    assert listed.basis == basis


def test_a_configured_price_wins() -> None:
    own = {"input_nano_usd_per_token": 7, "output_nano_usd_per_token": 9}
    listed = listed_price(model("pixtral-12b", price=own))
    assert listed.price == Price(**own)
    assert listed.basis == "set in the config"
