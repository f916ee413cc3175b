"""A closed month stays as it was, whatever comes later."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update

from serve_app.accounting.adjusting import adjust
from serve_app.accounting.hold import Outcome, Settlement
from serve_app.accounting.months import AccountTotal, close_month, month_status
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.schema import REVENUE_ACCOUNT, WASTE_ACCOUNT, audit_log, holds, lines
from serve_app.accounting.settling import Waste, book_waste
from serve_app.errors import Conflict, InvalidRequest, LedgerError
from tests.serve_app.accounting.shop import MONTH, Shop, charge

COMPLETED = Settlement(Outcome.COMPLETED, (charge(text=100, output=10),))
CHARGED = 260_000
WASTED = 6_000
TO_MAY_S = 60 * 86_400


async def audit_all(shop) -> None:
    async with shop.database.write() as connection:
        await connection.execute(update(holds).values(audited_us=shop.now_us))


async def busy_month(shop, ledger) -> str:
    """One request, a token of waste, half a refund; all in March, which is then over."""
    hold = await ledger.hold(shop.request())
    await ledger.settle(hold, COMPLETED)
    async with shop.database.write() as connection:
        await book_waste(connection, [Waste(hold.request_id, charge(output=1))], shop.now_us)
    (line_id,) = [row.id for row in await shop.rows(lines) if row.kind == "text"]
    await adjust(
        shop.database, line_id, 100_000, reason="half", actor="key pk_admin", clock=shop.clock
    )
    await audit_all(shop)
    shop.pass_s(TO_MAY_S)
    request_id: str = hold.request_id
    return request_id


def close(shop, month=MONTH):
    return close_month(shop.database, month, actor="key pk_finance", clock=shop.clock)


async def test_the_totals_are_the_months_lines_and_adjustments(shop, ledger):
    await busy_month(shop, ledger)
    totals = await close(shop)
    assert (totals.month, totals.requests, totals.lines) == (MONTH, 1, 3)
    assert totals.revenue_nano_usd == CHARGED + WASTED
    assert totals.accounts == (
        AccountTotal(WASTE_ACCOUNT, 1, WASTED, 100_000),
        AccountTotal(shop.payer.team_id, 110, CHARGED, -100_000),
    )
    for account in totals.accounts:
        balance = await shop.balance(account.account_id)
        assert balance.posted == account.nano_usd + account.adjusted_nano_usd
    assert (await shop.balance(REVENUE_ACCOUNT)).posted == totals.revenue_nano_usd


async def test_what_comes_later_is_booked_in_the_open_month(shop, ledger):
    request_id = await busy_month(shop, ledger)
    totals = await close(shop)
    (line_id,) = [row.id for row in await shop.rows(lines) if row.kind == "text"]
    await adjust(
        shop.database, line_id, None, reason="the rest", actor="key pk_admin", clock=shop.clock
    )
    async with shop.database.write() as connection:
        late = Waste(request_id, charge(attempt=1, output=2))
        await book_waste(connection, [late], shop.now_us)
    await ledger.settle(await ledger.hold(shop.request()), COMPLETED)
    assert (await month_status(shop.database, MONTH)).totals == totals
    assert (await shop.balance(WASTE_ACCOUNT)).posted == WASTED + 100_000
    may = await month_status(shop.database, "2026-05")
    assert may.totals.accounts == (
        AccountTotal(WASTE_ACCOUNT, 2, 12_000, 100_000),
        AccountTotal(shop.payer.team_id, 110, CHARGED, -100_000),
    )
    async with shop.database.read() as connection:
        found = await reconcile(connection)
    assert [item for item in found.differences if item.what != "journal"] == []


async def test_closing_again_changes_nothing(shop, ledger):
    await busy_month(shop, ledger)
    first = await close(shop)
    before = await month_status(shop.database, MONTH)
    shop.pass_s(60)
    assert await close(shop) == first
    assert await month_status(shop.database, MONTH) == before
    assert before.closed_by == "key pk_finance"
    assert [row.action for row in await shop.rows(audit_log)].count("close") == 1


async def test_a_month_waits_for_its_last_request_and_its_audit(shop, ledger):
    hold = await ledger.hold(shop.request())
    shop.pass_s(TO_MAY_S)
    with pytest.raises(Conflict, match="1 requests are running and 0 are"):
        await close(shop)
    await ledger.settle(hold, COMPLETED)
    with pytest.raises(Conflict, match="0 requests are running and 1 are"):
        await close(shop)
    status = await month_status(shop.database, MONTH)
    assert (status.open_holds, status.unaudited_holds, status.closed_us) == (0, 1, None)
    await audit_all(shop)
    await close(shop)


@pytest.mark.parametrize("days", [0, 21.5, 21.541])
async def test_a_month_is_not_closed_before_its_end_and_an_hour(shop, days):
    """March ends 21.5 days after our noon of the 10th."""
    shop.pass_s(days * 86_400)
    with pytest.raises(Conflict, match="an hour after its end"):
        await close(shop)
    shop.pass_s((21.542 - days) * 86_400)
    await close(shop)


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-3", "2026-03-01", "../../etc", ""])
async def test_only_a_month_is_a_month(shop, month):
    with pytest.raises(InvalidRequest):
        await close(shop, month)
    with pytest.raises(InvalidRequest):
        await month_status(shop.database, month)


async def test_closing_under_load_loses_nothing(shop, ledger):
    """A gateway whose clock is behind goes on holding for March while it is closed: each of its
    requests is either in the totals or refused."""
    await busy_month(shop, ledger)
    late = Shop(shop.database, shop.payer, shop.prices)

    async def hold_in_march(gateway) -> bool:
        try:
            hold = await gateway.hold(late.request())
        except LedgerError:
            return False
        await gateway.settle(hold, Settlement(Outcome.REFUSED))
        await audit_all(late)
        return True

    async with late.ledger(owner="behind") as gateway:
        early = [await hold_in_march(gateway) for _ in range(3)]
        tries = asyncio.gather(*(hold_in_march(gateway) for _ in range(5)))
        try:
            closing = await close(shop)
        except Conflict:  # it came while some were running
            closing = None
        await tries
        after = [await hold_in_march(gateway) for _ in range(2)]
    assert all(early)
    if closing is None:
        closing = await close(shop)
    else:
        assert not any(after)
    async with shop.database.read() as connection:
        in_march = [row for row in await connection.execute(holds.select()) if row.month == MONTH]
    assert closing.requests == len(in_march)
