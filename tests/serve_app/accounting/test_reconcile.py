"""Reconciliation is silent over sound books, and names whatever is changed in them."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, insert, text, update

from serve_app.accounting.months import close_month
from serve_app.accounting.period import start_of
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.schema import (
    WASTE_ACCOUNT,
    accounts,
    balances,
    holds,
    lines,
    months,
    price_versions,
    tallies,
    usage_days,
)
from tests.serve_app.accounting.books import HOLD, Books


@pytest.fixture
async def books(database):
    return Books(database)


@pytest.fixture
async def key(books):
    """Of a team with two months of requests, waste and a refund."""
    key = await books.key("web")
    other = await books.key("ads", team="ads")
    await books.request(key, "2026-10-31", text=100, output=10, waste={"output": 3})
    await books.request(key, "2026-11-03", text=10, image=50, output=5, pictures=1)
    await books.request(other, "2026-11-04", cached_text=7, output=1)
    await books.refund(1, 400, "2026-11-05")
    return key


async def checked(books, **arguments):
    async with books.database.read() as connection:
        return await reconcile(connection, **arguments)


async def change(books, *statements):
    """As no code of ours would: the guards are taken away first."""
    async with books.database.write() as connection:
        if books.database.dialect == "sqlite":
            rows = await connection.execute(
                text("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            )
            for name in rows.scalars().all():
                await connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            await connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            await connection.execute(statement)


async def test_sound_books_agree(books, key):
    found = await checked(books)
    assert found.differences == ()
    assert found.agrees
    assert found.lines == 8
    assert found.in_flight == ()


async def test_empty_books_agree(books):
    found = await checked(books)
    assert (found.agrees, found.lines) == (True, 0)


CORRUPTIONS = {
    "a line's amount": (
        update(lines).where(lines.c.id == 1).values(nano_usd=lines.c.nano_usd + 1),
        {"line amount", "posted", "usage_days nano_usd"},
    ),
    "a line's tokens": (
        update(lines).where(lines.c.id == 1).values(tokens=lines.c.tokens + 1),
        {"line amount", "usage_days tokens", "journal"},
    ),
    "a line lost": (
        delete(lines).where(lines.c.id == 8),
        {"posted", "usage_days tokens", "usage_days nano_usd", "journal"},
    ),
    "a line of another month": (
        update(lines).where(lines.c.id == 1).values(month="2026-12"),
        {"lines unlike their hold", "posted"},
    ),
    "a balance": (
        update(balances)
        .where(balances.c.account_id == WASTE_ACCOUNT, balances.c.month == "2026-11")
        .values(posted_nano_usd=399),
        {"posted"},
    ),
    "a balance lost": (delete(balances).where(balances.c.month == "2026-10"), {"posted"}),
    "a leaked hold": (
        update(balances).where(balances.c.account_id > 2).values(held_nano_usd=1),
        {"held"},
    ),
    "a leaked place": (
        update(accounts).where(accounts.c.scope == "team").values(concurrent=1),
        {"concurrent"},
    ),
    "the rollup": (
        update(usage_days).where(usage_days.c.kind == "image").values(tokens=51, nano_usd=0),
        {"usage_days tokens", "usage_days nano_usd"},
    ),
    "a day rolled up for nobody": (
        insert(usage_days).values(
            day="2026-11-09", account_id=1, key_id=1, model="x", kind="text", tokens=1, nano_usd=0
        ),
        {"usage_days tokens"},
    ),
    "the engine counted more": (
        update(tallies).where(tallies.c.request_id == "request-2").values(output=6),
        {"journal"},
    ),
    "the engine counted for a request without a hold": (
        insert(tallies).values(request_id="nobody", attempt=0, choice=0, group="g", text=1),
        {"journal"},
    ),
    "charged without a count": (
        delete(tallies).where(tallies.c.request_id == "request-3"),
        {"journal"},
    ),
    "a line above its hold": (
        update(holds).where(holds.c.request_id == "request-1").values(amount_nano_usd=1),
        {"charged above the hold"},
    ),
    "a charge of a voided hold": (
        update(holds).where(holds.c.request_id == "request-1").values(state="voided"),
        {"lines unlike their hold"},
    ),
    "drafts that a team pays for": (
        update(lines).where(lines.c.id == 2).values(kind="rejected_draft"),
        {"lines unlike their hold", "usage_days tokens", "usage_days nano_usd", "journal"},
    ),
    "drafts that nobody booked": (
        update(tallies).where(tallies.c.request_id == "request-2").values(rejected_draft=1),
        {"journal"},
    ),
    "another price": (update(price_versions).values(image=1), {"line amount"}),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
async def test_whatever_is_changed_is_found(books, key, name):
    statement, expected = CORRUPTIONS[name]
    await change(books, statement)
    found = await checked(books)
    assert not found.agrees
    assert {difference.what for difference in found.differences} == expected


async def test_a_refund_above_its_line_is_found(books, key):
    await books.refund(1, 200_000, "2026-11-06")
    (difference,) = (await checked(books)).differences
    assert (difference.what, difference.where) == ("refunded above the line", "line 1")
    assert (difference.expected, difference.found) == (200_000, 200_400)


async def test_a_difference_says_what_where_and_how_much(books, key):
    await change(
        books,
        update(balances)
        .where(balances.c.account_id == key.team_id, balances.c.month == "2026-11")
        .values(posted_nano_usd=balances.c.posted_nano_usd + 1),
    )
    (difference,) = (await checked(books)).differences
    assert difference.what == "posted"
    assert difference.where == f"team search (account {key.team_id})"
    assert difference.month == "2026-11"
    assert difference.expected == 60 * 2_000 + 5 * 6_000 - 400
    assert difference.found == difference.expected + 1
    assert difference.unit == "nano-USD"


async def test_one_month_is_checked_alone(books, key):
    await change(books, update(balances).values(posted_nano_usd=balances.c.posted_nano_usd + 1))
    assert {d.month for d in (await checked(books)).differences} == {"2026-10", "2026-11"}
    october = await checked(books, month="2026-10")
    assert {difference.month for difference in october.differences} == {"2026-10"}
    assert (october.lines, (await checked(books, month="2025-01")).agrees) == (3, True)


async def test_requests_in_flight_are_counted_and_not_compared_with_the_journal(books, key):
    await books.hold(key, "2026-11-07")
    unaudited = await books.request(key, "2026-11-07", audited=False, text=5)
    await change(books, update(tallies).where(tallies.c.request_id == unaudited).values(output=9))
    found = await checked(books)
    assert found.agrees
    (november,) = found.in_flight
    assert (november.month, november.running, november.unaudited) == ("2026-11", 1, 1)
    assert november.held_nano_usd == HOLD


async def test_requests_in_flight_hide_nobody_elses_difference(books, key):
    """Nor a difference of their own that cannot pass: in balances, prices and the rollup."""
    await books.request(key, "2026-11-07", audited=False, text=5)
    await change(
        books,
        update(tallies).where(tallies.c.request_id == "request-2").values(output=6),
        update(usage_days).where(usage_days.c.day == "2026-11-07").values(tokens=6),
    )
    found = {difference.what for difference in (await checked(books)).differences}
    assert found == {"journal", "usage_days tokens"}


async def test_a_closed_month_is_as_it_was_when_it_was_closed(books, key):
    november_end = start_of("2026-12-01") + 2 * 3_600_000_000
    for month in ("2026-10", "2026-11"):
        await close_month(books.database, month, actor="test", clock=lambda: november_end)
    assert (await checked(books)).agrees
    # Consistent with each other, and yet not what was closed.
    await change(
        books,
        update(months).where(months.c.month == "2026-10").values(totals=TAMPERED),
    )
    (difference,) = (await checked(books, month="2026-10")).differences
    assert (difference.what, difference.where) == ("closed month", "revenue revenue (account 2)")
    assert (difference.expected, difference.found) == (1, 278_000)
    assert (await checked(books, month="2026-11")).agrees


TAMPERED = {
    "month": "2026-10",
    "requests": 1,
    "lines": 3,
    "revenue_nano_usd": 1,
    "accounts": [
        {"account_id": WASTE_ACCOUNT, "tokens": 3, "nano_usd": 18_000, "adjusted_nano_usd": 0},
        {"account_id": 4, "tokens": 110, "nano_usd": 260_000, "adjusted_nano_usd": 0},
    ],
}


class Engines:
    def __init__(self, *readings):
        self.readings = list(readings)

    async def __call__(self):
        return self.readings.pop(0)


async def test_the_engines_own_counters_must_be_the_journals(books, key):
    journaled = 100 + 10 + 3 + 10 + 50 + 5 + 7 + 1
    equal = {"group-a": journaled}
    found = await checked(books, engines=Engines(equal, equal))
    assert (found.agrees, found.engines) == (True, ("group-a",))
    for wrong in (journaled - 1, journaled + 1):
        reading = {"group-a": wrong}
        (difference,) = (await checked(books, engines=Engines(reading, reading))).differences
        assert difference.what == "engine"
        assert (difference.where, difference.expected) == ("group-a", wrong)
        assert difference.found == journaled


async def test_a_busy_engine_may_be_ahead_of_its_journal_but_never_behind(books, key):
    ahead = await checked(books, engines=Engines({"group-a": 200}, {"group-a": 201}))
    assert (ahead.agrees, ahead.engines, ahead.busy_engines) == (True, (), ("group-a",))
    behind = await checked(books, engines=Engines({"group-a": 100}, {"group-a": 101}))
    assert [difference.what for difference in behind.differences] == ["engine"]


@pytest.mark.parametrize("month", [None, "2026-10"])
async def test_engines_are_not_compared_while_a_request_is_in_flight(books, key, month):
    await books.hold(key, "2026-11-07")
    reading = {"group-a": 10_000}
    found = await checked(books, month=month, engines=Engines(reading, reading))
    assert (found.agrees, found.busy_engines) == (True, ("group-a",))


async def test_waste_found_after_its_month_was_closed_is_of_the_open_one(books, key):
    """Its line is then of another month than its hold, on both accounts it is posted to."""
    await change(
        books,
        update(lines)
        .where(lines.c.account_id == WASTE_ACCOUNT)
        .values(month="2026-11", day="2026-11-05"),
        update(usage_days).where(usage_days.c.account_id == WASTE_ACCOUNT).values(day="2026-11-05"),
        *(
            update(balances)
            .where(balances.c.account_id.in_((WASTE_ACCOUNT, 2)), balances.c.month == month)
            .values(posted_nano_usd=balances.c.posted_nano_usd + amount)
            for month, amount in (("2026-10", -18_000), ("2026-11", 18_000))
        ),
    )
    assert (await checked(books)).differences == ()
