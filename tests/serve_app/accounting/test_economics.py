"""Cost to us beside price to them, checked by hand."""

from __future__ import annotations

from decimal import Decimal

import pytest

from serve_app.accounting.economics import economics
from serve_app.accounting.period import start_of
from tests.serve_app.accounting.books import Books

HOUR_US = 3_600_000_000
START = start_of("2026-11-03")


@pytest.fixture
async def books(database):
    return Books(database)


async def of_hours(books, hours, usd_per_hour="12", start_us=START):
    async with books.database.read() as connection:
        return await economics(
            connection,
            start_us=start_us,
            end_us=start_us + hours * HOUR_US,
            usd_per_hour=Decimal(usd_per_hour),
        )


async def test_a_window_that_pays_for_itself(books):
    key = await books.key("web")
    await books.request(key, text=3_000_000, output=3_000_000, waste={"output": 500_000})
    found = await of_hours(books, 2)
    assert (found.tokens, found.output_tokens, found.wasted_tokens) == (
        6_000_000,
        3_000_000,
        500_000,
    )
    # 3 M at $2 and 3 M at $6 a million, for two hours at $12.
    assert (found.revenue_usd, found.cost_usd, found.margin_usd) == (24, 24, 0)
    assert found.usd_per_million_tokens == 4
    assert found.usd_per_million_output_tokens == 8
    assert found.tokens_per_hour == found.break_even_tokens_per_hour == 3_000_000


async def test_break_even_is_rounded_up_and_amounts_to_the_nano_dollar(books):
    key = await books.key("web")
    await books.request(key, text=3)
    found = await of_hours(books, 1, usd_per_hour="1")
    # A token earns 2,000 nano-dollars: half a million an hour pay a dollar.
    assert found.break_even_tokens_per_hour == 500_000
    assert found.usd_per_million_tokens == Decimal("333333.333333333")
    assert (await of_hours(books, 1, "1.000001")).break_even_tokens_per_hour == 500_001


async def test_an_idle_window_has_a_cost_and_no_price(books):
    found = await of_hours(books, 10)
    assert (found.cost_usd, found.margin_usd) == (120, -120)
    assert found.usd_per_million_tokens is None
    assert found.usd_per_million_output_tokens is None
    assert found.break_even_tokens_per_hour is None


async def test_refunds_are_no_revenue(books):
    key = await books.key("web")
    await books.request(key, text=1_000_000)
    await books.refund(1, 500_000_000, "2026-11-03")
    found = await of_hours(books, 1)
    assert found.revenue_usd == Decimal("1.5")
    assert found.break_even_tokens_per_hour == 8_000_000


async def test_what_was_settled_outside_the_window_is_left_out(books):
    key = await books.key("web")
    for day in ("2026-11-02", "2026-11-03", "2026-11-04"):
        await books.request(key, day, text=1)
    assert (await of_hours(books, 24)).tokens == 1
    assert (await of_hours(books, 25)).tokens == 2


async def test_an_empty_window_is_refused(books):
    with pytest.raises(ValueError, match="empty"):
        await of_hours(books, 0)
