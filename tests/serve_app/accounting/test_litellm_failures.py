"""What broke in LiteLLM's accounting and cannot break here, each by its issue there.

Those that begin at the edge, such as disconnects and streams, are in
tests/serve_app/gateway/test_litellm_failures.py.
"""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from sqlalchemy import func, select
from sqlalchemy.engine import make_url

from serve_app.accounting.accounts import Balance
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Hold, Outcome, Settlement
from serve_app.accounting.schema import holds, lines, usage_days
from serve_app.accounting.settling import Closing, close_holds
from serve_app.errors import BudgetExhausted, LedgerError, LedgerUnavailable
from tests.serve_app.accounting.shop import AMOUNT, Shop, charge

COMPLETED = Settlement(Outcome.COMPLETED, (charge(text=100, image=20, output=10),))
CHARGED = 300_000


async def test_no_budget_is_overrun_by_checking_first_and_incrementing_later(shop, ledger):
    """#34732, #40095: concurrent requests all passed a check made before any was counted."""
    await shop.limit(shop.payer.key_id, budget_nano_usd=3 * AMOUNT)
    results = await asyncio.gather(
        *(ledger.hold(shop.request()) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(result, Hold) for result in results) == 3
    assert (await shop.balance(shop.payer.key_id)).held == 3 * AMOUNT


async def test_reservations_are_given_back_however_a_request_ends(shop, ledger):
    """#27639, PR 30522, #36926, #40050: leaked reservations ended in false 429s."""
    await shop.limit(shop.payer.key_id, max_concurrent=1, budget_nano_usd=10 * AMOUNT)
    for outcome in Outcome:
        hold = await ledger.hold(shop.request())
        await ledger.settle(hold, Settlement(outcome))
    cancelled = asyncio.create_task(ledger.hold(shop.request()))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    hold = await ledger.hold(shop.request())
    with pytest.raises(LedgerError):
        await ledger.settle(hold, Settlement(Outcome.COMPLETED, (charge(output=51),)))
    await ledger.settle(hold, COMPLETED)
    assert (await shop.balance(shop.payer.key_id)).held == 0
    await ledger.hold(shop.request())


async def test_cleaning_up_and_settling_at_once_count_once(shop, ledger):
    """#35569: a reservation was released by the cleanup and again by the request's end."""
    hold = await ledger.hold(shop.request())

    async def clean_up() -> None:
        expired = Closing(hold.request_id, Settlement(Outcome.RECOVERED))
        async with shop.database.write() as connection:
            await close_holds(connection, [expired], shop.now_us)

    await asyncio.gather(ledger.settle(hold, COMPLETED), clean_up(), ledger.settle(hold, COMPLETED))
    balance = await shop.balance(shop.payer.team_id)
    assert balance.held == 0
    assert balance.posted in (0, CHARGED)
    assert (await shop.account_row(shop.payer.team_id)).concurrent == 0


async def test_fail_closed_fails_closed(sqlite_url):
    """#33923: with its store away, "fail closed" let requests through."""
    path = make_url(sqlite_url).database
    assert path is not None
    database = Database.open(sqlite_url, timeout_s=0.1)
    own = await Shop.open(database)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with own.ledger(hold_timeout_s=0.3) as ledger:
        with pytest.raises(LedgerUnavailable):
            await ledger.hold(own.request())
        other.execute("ROLLBACK")
    other.close()
    await database.close()


async def test_no_row_is_dropped_however_many_are_written_at_once(shop, ledger):
    """#29292: of more than 100 groups in a flush, the rest was silently dropped."""
    held = await asyncio.gather(*(ledger.hold(shop.request()) for _ in range(700)))
    await asyncio.gather(*(ledger.settle(hold, COMPLETED) for hold in held))
    async with shop.database.read() as connection:
        count = await connection.scalar(select(func.count()).select_from(lines))
    assert count == 3 * 700
    assert await shop.balance(shop.payer.team_id) == Balance(700 * CHARGED, 0)


async def test_nothing_that_waits_is_lost_in_a_shutdown(shop):
    """#34805, #38157, #34820: queued rows were popped before they were written, then lost."""
    async with shop.ledger() as ledger:
        held = await asyncio.gather(*(ledger.hold(shop.request()) for _ in range(150)))
        settling = [asyncio.create_task(ledger.settle(hold, COMPLETED)) for hold in held]
        await asyncio.sleep(0)
    assert await shop.balance(shop.payer.team_id) == Balance(150 * CHARGED, 0)
    await asyncio.gather(*settling)


async def test_two_requests_of_one_id_collide_loudly(shop, ledger):
    """#6633, #28376, #39749: rows keyed by a provider's id that was not unique were dropped."""
    await ledger.hold(shop.request("chatcmpl-1"))
    async with shop.ledger(owner="another gateway") as other:
        with pytest.raises(LedgerError):
            await other.hold(shop.request("chatcmpl-1"))
    assert await shop.balance(shop.payer.team_id) == Balance(0, AMOUNT)


async def test_a_settlement_that_is_delivered_twice_is_booked_once(shop, ledger):
    """#15740, #17814: the same request was recorded twice."""
    hold = await ledger.hold(shop.request())
    await asyncio.gather(*(ledger.settle(hold, COMPLETED) for _ in range(5)))
    async with shop.ledger(owner="another gateway") as other:
        await other.settle(hold, COMPLETED)
    assert len(await shop.rows(lines)) == 3
    assert await shop.balance(shop.payer.team_id) == Balance(CHARGED, 0)


async def test_aggregates_agree_with_their_lines(shop, ledger):
    """#37144: daily totals and the rows that they were made of disagreed."""
    for _ in range(3):
        await ledger.settle(await ledger.hold(shop.request()), COMPLETED)
        shop.pass_s(86_400)
    rolled = {
        (row.day, row.kind): (row.tokens, row.nano_usd) for row in await shop.rows(usage_days)
    }
    booked = {(row.day, row.kind): (row.tokens, row.nano_usd) for row in await shop.rows(lines)}
    assert rolled == booked
    assert len(rolled) == 9
    assert sum(nano_usd for _, nano_usd in rolled.values()) == 3 * CHARGED


async def test_our_attempts_at_a_request_are_one_request(shop, ledger):
    """#39455: retries inflated the counts that limits and reports are made of."""
    await shop.limit(shop.payer.team_id, requests_per_minute=100)
    hold = await ledger.hold(shop.request())
    attempts = (charge(attempt=0, text=100, output=4), charge(attempt=1, output=6))
    await ledger.settle(hold, Settlement(Outcome.COMPLETED, attempts))
    row = await shop.account_row(shop.payer.team_id)
    assert row.requests_used == 1_000_000  # one, in millionths
    assert len(await shop.rows(holds)) == 1
    assert sum(row.tokens for row in await shop.rows(lines) if row.kind == "output") == 10


async def test_a_budget_that_is_spent_stays_spent(shop, ledger):
    """#38176: what one way in has used up, no other has, be it settled or still held."""
    await shop.limit(shop.payer.organisation_id, budget_nano_usd=AMOUNT + CHARGED - 1)
    await ledger.settle(await ledger.hold(shop.request()), COMPLETED)
    other = await shop.team_and_key("other", "droid")
    for payer in (shop.payer, other):
        with pytest.raises(BudgetExhausted, match="organisation 'acme'"):
            await ledger.hold(shop.request(payer=payer))
