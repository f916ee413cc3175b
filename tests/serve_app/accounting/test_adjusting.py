"""Refunds: in the open month, of one line, never more than it, on either store."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.accounting.accounts import Balance
from serve_app.accounting.adjusting import adjust
from serve_app.accounting.hold import Outcome, Settlement
from serve_app.accounting.schema import WASTE_ACCOUNT, adjustments, audit_log, lines, usage_days
from serve_app.accounting.settling import Waste, book_waste
from serve_app.errors import Conflict, InvalidRequest, NotFound
from tests.serve_app.accounting.shop import MONTH, NOON_US, charge

OUTPUT = 7
LINE = OUTPUT * 6_000


@pytest.fixture
async def line_id(shop):
    """Of a settled request's output: 7 tokens."""
    async with shop.ledger() as ledger:
        hold = await ledger.hold(shop.request())
        await ledger.settle(hold, Settlement(Outcome.COMPLETED, (charge(output=OUTPUT),)))
    return (await shop.rows(lines))[0].id


def refund(shop, line_id, nano_usd=None, reason="an outage"):
    return adjust(
        shop.database, line_id, nano_usd, reason=reason, actor="key pk_admin", clock=shop.clock
    )


async def test_a_refund_moves_the_line_from_the_team_to_waste(shop, line_id):
    made = await refund(shop, line_id)
    assert (made.line_id, made.tokens, made.nano_usd) == (line_id, OUTPUT, LINE)
    for account_id in shop.payer.account_ids:
        assert await shop.balance(account_id) == Balance(0, 0)
    assert await shop.balance(WASTE_ACCOUNT) == Balance(LINE, 0)


async def test_a_refund_is_posted_to_the_open_month_and_can_be_spent_there(shop, line_id):
    shop.pass_s(30 * 86_400)
    made = await refund(shop, line_id)
    assert (made.month, made.day) == ("2026-04", "2026-04-09")
    assert await shop.balance(shop.payer.team_id, MONTH) == Balance(LINE, 0)
    assert await shop.balance(shop.payer.team_id, "2026-04") == Balance(-LINE, 0)


async def test_a_line_is_refunded_once_in_parts_or_whole(shop, line_id):
    first = await refund(shop, line_id, 13_000)
    assert (first.tokens, first.nano_usd) == (2, 13_000)
    with pytest.raises(Conflict, match=r"0\.000029 USD are left"):
        await refund(shop, line_id, LINE - 13_000 + 1)
    rest = await refund(shop, line_id)
    assert (rest.tokens, rest.nano_usd) == (OUTPUT - 2, LINE - 13_000)
    for amount in (None, 1):
        with pytest.raises(Conflict):
            await refund(shop, line_id, amount)


async def test_refunds_at_once_never_exceed_their_line(shop, line_id):
    tried = await asyncio.gather(
        *(refund(shop, line_id, LINE // 3) for _ in range(8)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in tried) == 5
    assert sum(row.nano_usd for row in await shop.rows(adjustments)) == LINE


async def test_what_was_used_stays_as_it_was(shop, line_id):
    before = await shop.rows(lines), await shop.rows(usage_days)
    await refund(shop, line_id)
    assert (await shop.rows(lines), await shop.rows(usage_days)) == before


async def test_reason_and_actor_are_kept_and_audited(shop, line_id):
    made = await refund(shop, line_id, 6_000, reason="as agreed")
    (row,) = await shop.rows(adjustments)
    assert (row.reason, row.actor, row.posted_us) == ("as agreed", "key pk_admin", NOON_US)
    (entry,) = await shop.rows(audit_log)
    assert (entry.actor, entry.action) == ("key pk_admin", "refund")
    assert entry.subject == f"line {made.line_id}"
    assert entry.detail["nano_usd"] == "6000"


@pytest.mark.parametrize(
    ("amount", "reason", "param"),
    [
        (0, "why", "nano_usd"),
        (-1, "why", "nano_usd"),
        (None, "  ", "reason"),
        (None, "x" * 501, "reason"),
    ],
)
async def test_bad_input_is_refused_by_name(shop, line_id, amount, reason, param):
    with pytest.raises(InvalidRequest) as refused:
        await refund(shop, line_id, amount, reason)
    assert refused.value.param == param
    assert await shop.rows(adjustments) == []


async def test_only_lines_of_teams_can_be_refunded(shop, line_id):
    with pytest.raises(NotFound):
        await refund(shop, 10_000)
    request_id = (await shop.rows(lines))[0].request_id
    async with shop.database.write() as connection:
        await book_waste(connection, [Waste(request_id, charge(text=5))], NOON_US)
    (waste,) = [row for row in await shop.rows(lines) if row.account_id == WASTE_ACCOUNT]
    with pytest.raises(Conflict, match="waste"):
        await refund(shop, waste.id)
