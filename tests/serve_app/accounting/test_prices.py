from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.accounting.money import format_usd, usd_per_million
from serve_app.accounting.prices import PriceSheet, listed_price
from serve_app.accounting.tokens import Tokens
from serve_app.config import Model, Price, parse_config


def model(name: str, **fields: object) -> Model:
    return parse_config({"model": {"path": "/models/x", "name": name, **fields}}).model


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_cost_is_the_sum_of_its_parts(
    text: int, output: int, text_tokens: int, output_tokens: int
) -> None:
    sheet = PriceSheet(1, "m", "standard", text, text, 0, 0, output, effective_us=0)
    parts = [Tokens(text=text_tokens), Tokens(image=text_tokens), Tokens(output=output_tokens)]
    whole = sheet.cost(sum(parts, Tokens()))
    assert Decimal(format_usd(whole)) == sum(
        Decimal(format_usd(sheet.cost(part))) for part in parts
    )
    assert whole == 2 * text * text_tokens + output * output_tokens


@given(*[st.integers(0, 10**6)] * 9)
def test_the_most_is_enough_however_much_is_cached_and_no_more_than_that(
    text, image, cached_text, cached_image, output, texts, cached_texts, images, cached_images
) -> None:
    sheet = PriceSheet(1, "m", "standard", text, image, cached_text, cached_image, output, 0)
    most = sheet.most(Tokens(text=texts + cached_texts, image=images + cached_images, output=7))
    assert most >= sheet.cost(Tokens(texts, images, cached_texts, cached_images, output=7))
    assert most == max(
        sheet.cost(Tokens(output=7, **{t: texts + cached_texts, i: images + cached_images}))
        for t in ("text", "cached_text")
        for i in ("image", "cached_image")
    )


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
    assert usd_per_million(listed.price.input_nano_usd_per_token) == usd_in
    assert usd_per_million(listed.price.output_nano_usd_per_token) == usd_out
    assert listed.basis == basis


def test_a_configured_price_wins() -> None:
    own = {"input_nano_usd_per_token": 7, "output_nano_usd_per_token": 9}
    listed = listed_price(model("pixtral-12b", price=own))
    assert listed.price == Price(**own)
    assert listed.basis == "set in the config"
