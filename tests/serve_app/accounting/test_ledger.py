"""Hold and settle, on both stores: what is reserved, charged, refused, retried and left behind."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert

from serve_app.accounting.accounts import Balance
from serve_app.accounting.hold import HoldState, Outcome, Settlement
from serve_app.accounting.price_book import PriceBook
from serve_app.accounting.schema import (
    REVENUE_ACCOUNT,
    WASTE_ACCOUNT,
    alerts,
    holds,
    lines,
    price_versions,
    usage_days,
)
from serve_app.accounting.settling import Closing, Waste, book_waste, close_holds
from serve_app.errors import (
    BudgetExhausted,
    InvalidRequest,
    LedgerError,
    RateLimited,
    Unauthorized,
)
from tests.serve_app.accounting.shop import AMOUNT, DAY, MONTH, NOON_US, charge

COMPLETED = Settlement(
    Outcome.COMPLETED,
    (charge(text=60, cached_text=40, image=20, output=10), charge(0, 1, output=5)),
)
# 60 x 2000 + 40 x 200 + 20 x 2000 + 15 x 6000
CHARGED = 258_000
REFUSED = Settlement(Outcome.REFUSED)


# Holding


async def test_a_hold_reserves_the_most_that_a_request_may_cost_on_all_three_accounts(shop, ledger):
    hold = await ledger.hold(shop.request())
    assert (hold.month, hold.day, hold.created_us) == (MONTH, DAY, NOON_US)
    assert hold.amount_nano_usd == AMOUNT
    for account_id in shop.payer.account_ids:
        assert await shop.balance(account_id) == Balance(posted=0, held=AMOUNT)
        assert (await shop.account_row(account_id)).concurrent == 1
    row = await shop.hold_row(hold.request_id)
    assert (row.state, row.owner, row.outcome) == (HoldState.HELD, "gateway", None)
    assert (row.text_tokens, row.image_tokens, row.max_output_tokens) == (100, 20, 50)
    assert row.lease_until_us == NOON_US + 60_000_000


@pytest.mark.parametrize("scope", [0, 1, 2])
async def test_a_budget_admits_what_fits_exactly_and_not_a_nano_dollar_more(shop, ledger, scope):
    await shop.limit(shop.payer.account_ids[scope], budget_nano_usd=2 * AMOUNT)
    await ledger.hold(shop.request())
    await ledger.hold(shop.request())
    with pytest.raises(
        BudgetExhausted, match="0 USD of the budget for 2026-03 are left"
    ) as refused:
        await ledger.hold(shop.request())
    assert refused.value.message.startswith(("key 'robot'", "team 'search'", "organisation 'acme'"))
    await shop.limit(shop.payer.account_ids[scope], budget_nano_usd=3 * AMOUNT - 1)
    with pytest.raises(BudgetExhausted):
        await ledger.hold(shop.request())


async def test_a_budget_is_the_months_and_begins_anew(shop, ledger):
    await shop.limit(shop.payer.team_id, budget_nano_usd=AMOUNT)
    await ledger.hold(shop.request())
    shop.pass_s(22 * 86_400)
    assert (await ledger.hold(shop.request())).month == "2026-04"


async def test_a_refused_hold_consumes_nothing_of_any_scope(shop, ledger):
    limits = {"requests_per_minute": 2, "input_tokens_per_minute": 500}
    await shop.limit(shop.payer.key_id, output_tokens_per_minute=500, **limits)
    await shop.limit(shop.payer.organisation_id, budget_nano_usd=AMOUNT - 1)
    for _ in range(5):
        with pytest.raises(BudgetExhausted):
            await ledger.hold(shop.request())
    row = await shop.account_row(shop.payer.key_id)
    assert (row.requests_used, row.input_tokens_used, row.output_tokens_used) == (0, 0, 0)
    assert row.concurrent == 0
    assert await shop.rows(holds) == []


@pytest.mark.parametrize("scope", [0, 1, 2])
async def test_an_inactive_account_is_unauthorised_in_the_words_for_unknown_keys(
    shop, ledger, scope
):
    await shop.limit(shop.payer.account_ids[scope], active=False)
    with pytest.raises(Unauthorized, match="missing or unknown API key"):
        await ledger.hold(shop.request())


async def test_concurrent_requests_are_counted_until_they_end(shop, ledger):
    await shop.limit(shop.payer.team_id, max_concurrent=2)
    first, _ = [await ledger.hold(shop.request()) for _ in range(2)]
    with pytest.raises(RateLimited, match="team 'search': 2 requests are running"):
        await ledger.hold(shop.request())
    await ledger.settle(first, COMPLETED)
    await ledger.hold(shop.request())


async def test_a_rate_names_its_scope_and_when_there_is_room_again(shop, ledger):
    await shop.limit(shop.payer.team_id, requests_per_minute=2)
    for remaining in (1, 0):
        hold = await ledger.hold(shop.request())
        assert hold.requests is not None
        assert (hold.requests.limit, hold.requests.remaining) == (2, remaining)
    with pytest.raises(RateLimited, match="team 'search': the limit of 2 requests") as refused:
        await ledger.hold(shop.request())
    assert refused.value.retry_after_s == 30
    shop.pass_s(29.999)
    with pytest.raises(RateLimited):
        await ledger.hold(shop.request())
    shop.pass_s(0.001)
    await ledger.hold(shop.request())


async def test_the_tightest_scope_is_told(shop, ledger):
    await shop.limit(shop.payer.key_id, output_tokens_per_minute=1000)
    await shop.limit(shop.payer.organisation_id, input_tokens_per_minute=300)
    hold = await ledger.hold(shop.request())
    assert hold.requests is None
    assert hold.tokens is not None
    assert (hold.tokens.limit, hold.tokens.remaining, hold.tokens.reset_s) == (300, 180, 24.0)


@pytest.mark.parametrize(
    ("rate", "most", "param"),
    [("input_tokens_per_minute", 119, "messages"), ("output_tokens_per_minute", 49, "max_tokens")],
)
async def test_a_request_larger_than_its_rate_is_told_that_no_wait_helps(
    shop, ledger, rate, most, param
):
    await shop.limit(shop.payer.key_id, **{rate: most})
    with pytest.raises(InvalidRequest, match=f"{most} are allowed per minute: it can never") as bad:
        await ledger.hold(shop.request())
    assert bad.value.param == param


async def test_pictures_are_limited_per_request(shop, ledger):
    await shop.limit(shop.payer.key_id, max_pictures=2)
    await ledger.hold(shop.request(pictures=2))
    with pytest.raises(InvalidRequest, match="may have 2 pictures, and this one has 3"):
        await ledger.hold(shop.request(pictures=3))


async def test_unused_output_tokens_go_back_into_the_bucket(shop, ledger):
    await shop.limit(shop.payer.key_id, output_tokens_per_minute=100)
    first, _ = [await ledger.hold(shop.request()) for _ in range(2)]
    with pytest.raises(RateLimited):
        await ledger.hold(shop.request())
    await ledger.settle(first, COMPLETED)  # 35 of its 50 were not used
    await ledger.hold(shop.request(max_output_tokens=35))
    with pytest.raises(RateLimited):
        await ledger.hold(shop.request(max_output_tokens=1))


async def test_a_request_id_is_held_for_once(shop, ledger):
    await ledger.hold(shop.request("same"))
    with pytest.raises(LedgerError):
        await ledger.hold(shop.request("same"))
    async with shop.ledger(owner="another gateway") as other:
        with pytest.raises(LedgerError):
            await other.hold(shop.request("same"))


# Settling


async def test_a_settlement_writes_lines_balances_and_rollup_and_releases_the_rest(shop, ledger):
    hold = await ledger.hold(shop.request())
    await ledger.settle(hold, COMPLETED)
    found = [(row.choice, row.kind, row.tokens, row.nano_usd) for row in await shop.rows(lines)]
    assert sorted(found) == [
        (0, "cached_text", 40, 8_000),
        (0, "image", 20, 40_000),
        (0, "output", 10, 60_000),
        (0, "text", 60, 120_000),
        (1, "output", 5, 30_000),
    ]
    for row in await shop.rows(lines):
        assert (row.account_id, row.counter_account_id) == (shop.payer.team_id, REVENUE_ACCOUNT)
        assert (row.key_id, row.month, row.day) == (shop.payer.key_id, MONTH, DAY)
    for account_id in (*shop.payer.account_ids, REVENUE_ACCOUNT):
        assert await shop.balance(account_id) == Balance(posted=CHARGED, held=0)
    rolled = {row.kind: (row.tokens, row.nano_usd) for row in await shop.rows(usage_days)}
    assert rolled["output"] == (15, 90_000)
    row = await shop.hold_row(hold.request_id)
    assert (row.state, row.outcome, row.closed_us) == ("settled", "completed", NOON_US)
    assert (await shop.account_row(shop.payer.key_id)).concurrent == 0


async def test_settling_twice_changes_nothing(shop, ledger):
    hold = await ledger.hold(shop.request())
    await ledger.settle(hold, COMPLETED)
    await ledger.settle(hold, COMPLETED)
    await ledger.settle(hold, REFUSED)
    assert await shop.balance(shop.payer.team_id) == Balance(posted=CHARGED, held=0)
    assert (await shop.hold_row(hold.request_id)).state == HoldState.SETTLED


async def test_two_settlements_of_one_hold_in_one_batch_are_one(shop, ledger):
    hold = await ledger.hold(shop.request())
    await asyncio.gather(*(ledger.settle(hold, COMPLETED) for _ in range(10)))
    assert await shop.balance(shop.payer.team_id) == Balance(posted=CHARGED, held=0)


@pytest.mark.parametrize(
    ("outcome", "state"), [(Outcome.REFUSED, "voided"), (Outcome.FAILED, "settled")]
)
async def test_what_is_not_the_teams_fault_releases_everything(shop, ledger, outcome, state):
    hold = await ledger.hold(shop.request())
    await ledger.settle(hold, Settlement(outcome))
    assert await shop.balance(shop.payer.team_id) == Balance(0, 0)
    assert (await shop.hold_row(hold.request_id)).state == state
    assert await shop.rows(lines) == []


@pytest.mark.parametrize(
    "settlement",
    [
        Settlement(Outcome.COMPLETED, (charge(text=101),)),
        Settlement(Outcome.COMPLETED, (charge(text=60, cached_text=41),)),
        Settlement(Outcome.COMPLETED, (charge(image=21),)),
        Settlement(Outcome.COMPLETED, (charge(output=26), charge(choice=1, output=25))),
        Settlement(Outcome.COMPLETED, (charge(output=1), charge(output=1))),
        Settlement(Outcome.REFUSED, (charge(output=1),)),
        Settlement(Outcome.FAILED, (charge(output=1),)),
        Settlement(Outcome.COMPLETED, (charge(rejected_draft=1),)),
    ],
)
async def test_a_settlement_that_contradicts_its_hold_is_refused_loudly(shop, ledger, settlement):
    hold = await ledger.hold(shop.request())
    with pytest.raises(LedgerError, match=hold.request_id):
        await ledger.settle(hold, settlement)
    with pytest.raises(LedgerError, match=hold.request_id):
        async with shop.database.write() as connection:
            await close_holds(connection, [Closing(hold.request_id, settlement)], NOON_US)
    assert (await shop.hold_row(hold.request_id)).state == HoldState.HELD


async def test_a_sheet_from_before_that_asks_more_for_cached_tokens_is_held_and_settled(
    shop, ledger
):
    """Versions are never edited: one that would be refused today may be in force."""
    dearer = {"cached_text": 2_500, "cached_image": 3_000}
    values = {"model": "pixtral", "tier": "standard", "effective_us": 1}
    values |= {"text": 2_000, "image": 2_000, "output": 6_000, **dearer}
    async with shop.database.write() as connection:
        await connection.execute(
            insert(price_versions).values(**values, created_us=0, created_by="test")
        )
    book = PriceBook(shop.database, clock=shop.clock)
    await book.refresh()
    hold = await ledger.hold(shop.request(prices=book.current("pixtral")))
    # 100 x 2500 + 20 x 3000 + 50 x 6000
    assert hold.amount_nano_usd == 610_000
    cached = Settlement(
        Outcome.COMPLETED, (charge(cached_text=96, text=4, cached_image=20, output=50),)
    )
    await ledger.settle(hold, cached)
    assert (await shop.hold_row(hold.request_id)).state == HoldState.SETTLED
    # 96 x 2500 + 4 x 2000 + 20 x 3000 + 50 x 6000
    for account_id in shop.payer.account_ids:
        assert await shop.balance(account_id) == Balance(posted=608_000, held=0)


async def test_prices_and_month_are_those_of_admission(shop, ledger):
    hold = await ledger.hold(shop.request())
    shop.pass_s(30 * 86_400)
    await ledger.settle(hold, COMPLETED)
    assert await shop.balance(shop.payer.team_id) == Balance(posted=CHARGED, held=0)
    assert {row.day for row in await shop.rows(lines)} == {DAY}


async def test_a_soft_threshold_is_told_once_in_the_settlement_that_crosses_it(shop, ledger):
    await shop.limit(
        shop.payer.team_id, budget_nano_usd=10 * CHARGED, alert_percents=[10, 25, 30, 90]
    )
    for _ in range(3):
        await ledger.settle(await ledger.hold(shop.request()), COMPLETED)
    found = [(row.account_id, row.percent, row.posted_nano_usd) for row in await shop.rows(alerts)]
    team = shop.payer.team_id
    assert found == [(team, 10, CHARGED), (team, 25, 3 * CHARGED), (team, 30, 3 * CHARGED)]
    assert {row.next_attempt_us for row in await shop.rows(alerts)} == {NOON_US}


async def test_waste_is_booked_on_the_waste_account_alone(shop, ledger, database):
    hold = await ledger.hold(shop.request())
    await ledger.settle(hold, Settlement(Outcome.FAILED))
    async with database.write() as connection:
        wastes = [Waste(hold.request_id, charge(text=100, output=7))]
        await book_waste(connection, wastes, NOON_US)
        await book_waste(connection, [], NOON_US)
    assert await shop.balance(shop.payer.team_id) == Balance(0, 0)
    for account_id in (WASTE_ACCOUNT, REVENUE_ACCOUNT):
        assert await shop.balance(account_id) == Balance(posted=242_000, held=0)
    expected = {(WASTE_ACCOUNT, "text"): 100, (WASTE_ACCOUNT, "output"): 7}
    assert await shop.line_tokens(hold.request_id) == expected


async def test_a_disconnect_is_on_record_before_its_hold_ends(shop, ledger):
    hold = await ledger.hold(shop.request())
    await ledger.note_disconnect(hold)
    shop.pass_s(1)
    await ledger.note_disconnect(hold)
    assert (await shop.hold_row(hold.request_id)).disconnected_us == NOON_US


# Leases


async def test_the_leases_of_open_holds_are_renewed_and_of_released_ones_not(shop):
    async with shop.ledger(hold_lease_s=2) as ledger:
        kept, released = [await ledger.hold(shop.request()) for _ in range(2)]
        ledger.release(released)
        shop.pass_s(1)
        while (await shop.hold_row(kept.request_id)).lease_until_us != NOON_US + 3_000_000:
            await asyncio.sleep(0.05)
        row = await shop.hold_row(released.request_id)
        assert row.lease_until_us == NOON_US + 2_000_000
