"""Gateways die, groups die, counts come late: the books become equal to what was computed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting import recovery, sweeper
from serve_app.accounting.auditor import Audit, audit
from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Charge, Outcome
from serve_app.accounting.journal_intake import take_in
from serve_app.accounting.lease import Lease
from serve_app.accounting.recovery import recover
from serve_app.accounting.schema import WASTE_ACCOUNT, holds, lines
from serve_app.accounting.settling import Closing, close_holds
from serve_app.accounting.tokens import Tokens
from serve_app.config import Accounting
from serve_app.errors import LedgerUnavailable, Overloaded
from shards.tally import Tally
from tests.serve_app.accounting.books import Books
from tests.serve_app.accounting.sweeping import World


@pytest.fixture
async def world(database: Database) -> World:
    books = Books(database)
    return World(database, await books.key("key"), books)


# Recovering: holds of gateways that have died.


async def test_a_dead_gateways_request_is_paid_by_nobody(world):
    request_id = await world.hold()
    world.engines.compute(
        Tally(request_id, 1, 0, text=20, image=42, output=7), Tally(request_id, 1, 1, output=5)
    )
    report = await world.sweep()
    assert (report.recovered, report.audit) == (1, Audit(audited=1, wasteful=1))
    assert await world.lines(request_id) == {
        ("waste", 1, 0, "text"): 20,
        ("waste", 1, 0, "image"): 42,
        ("waste", 1, 0, "output"): 7,
        ("waste", 1, 1, "output"): 5,
    }
    assert (await world.row(request_id)).outcome == Outcome.RECOVERED
    await world.is_at_rest()


async def test_a_disconnect_on_record_is_paid_by_the_team_though_its_gateway_died(world):
    """LiteLLM #13245, PR 33736, PR 37558: a client that leaves is billed zero. And #39455: retries
    inflate counts; here what was lost before the delivering attempt is ours to bear."""
    request_id = await world.hold(disconnected=True)
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=1))
    world.engines.compute(
        Tally(request_id, 2, 0, text=20, output=7),
        Tally(request_id, 2, 1, output=5, rejected_draft=3),
        group="b",
    )
    assert (await world.sweep()).recovered == 1
    assert await world.lines(request_id) == {
        ("waste", 1, 0, "text"): 20,
        ("waste", 1, 0, "output"): 1,
        ("team", 2, 0, "text"): 20,
        ("team", 2, 0, "output"): 7,
        ("team", 2, 1, "output"): 5,
        ("waste", 2, 1, "rejected_draft"): 3,
    }
    await world.is_at_rest()


@pytest.mark.parametrize("disconnected", [True, False])
async def test_a_reservation_for_which_nothing_was_computed_does_not_leak(world, disconnected):
    """LiteLLM #27639, PR 30522, #36926, #40050: leaked reservations become false 429s."""
    request_id = await world.hold(disconnected=disconnected)
    assert (await world.sweep()).recovered == 1
    assert (await world.row(request_id)).state == "voided"
    assert await world.lines(request_id) == {}
    await world.is_at_rest()


async def test_what_runs_is_left_alone(world):
    request_id = await world.hold(expired=False)
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=7))
    report = await world.sweep()
    assert (report.recovered, report.audit.audited) == (0, 0)
    assert world.engines.aborted == []
    assert (await world.row(request_id)).state == "held"
    world.now_us += MICROSECONDS
    assert (await world.sweep()).recovered == 1


async def test_counts_are_final_before_they_are_charged(world):
    """The engine goes on for a dead gateway's client, until it is told to stop."""
    request_id = await world.hold(disconnected=True)
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=7))
    world.engines.last_words[request_id] = [Tally(request_id, 1, 0, text=20, output=9)]
    await world.sweep()
    assert (await world.lines(request_id))["team", 1, 0, "output"] == 9
    await world.is_at_rest()


async def test_a_slow_gateway_that_renewed_in_between_keeps_its_hold(world):
    request_id = await world.hold()

    async def renew() -> None:
        await world.change(request_id, lease_until_us=world.now_us + 60 * MICROSECONDS)

    world.engines.on_journal = renew
    assert (await world.sweep()).recovered == 0
    assert (await world.row(request_id)).state == "held"


async def test_a_slow_gateway_that_settled_in_between_has_settled(world):
    """LiteLLM #35569: cleanup counts a second time what was counted already."""
    request_id = await world.hold()
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=7))

    async def settle() -> None:
        charge = Charge(1, 0, Tokens(text=20, output=7))
        await world.settle(request_id, Outcome.COMPLETED, charge)

    world.engines.on_journal = settle
    report = await world.sweep()
    assert (report.recovered, report.audit) == (0, Audit(audited=1))
    assert (await world.row(request_id)).outcome == Outcome.COMPLETED
    assert await world.lines(request_id) == {
        ("team", 1, 0, "text"): 20,
        ("team", 1, 0, "output"): 7,
    }
    await world.is_at_rest()


async def test_a_disconnect_noted_in_between_counts(world):
    request_id = await world.hold()
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=7))

    async def note() -> None:
        await world.change(request_id, disconnected_us=world.now_us)

    world.engines.on_journal = note
    await world.sweep()
    assert ("team", 1, 0, "output") in await world.lines(request_id)


async def test_a_team_never_pays_more_than_was_reserved(world, caplog):
    """Whatever the engine counted; its budget was checked against the hold."""
    request_id = await world.hold(disconnected=True)
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=101))
    assert (await world.sweep()).recovered == 1
    assert await world.lines(request_id) == {
        ("waste", 1, 0, "text"): 20,
        ("waste", 1, 0, "output"): 101,
    }
    assert "not charged" in caplog.text
    await world.is_at_rest()


async def test_while_a_group_is_silent_only_what_is_surely_final_is_closed(world):
    request_id = await world.hold(disconnected=True)
    failed = await world.settled(Outcome.FAILED)
    retried = await world.settled(Outcome.COMPLETED, Charge(2, 0, Tokens(text=5)))
    completed = await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(text=5)))
    for name, attempt in ((request_id, 1), (failed, 1), (retried, 2), (completed, 1)):
        world.engines.compute(Tally(name, attempt, 0, text=5))
    world.engines.deaf = True
    report = await world.sweep()
    assert (report.postponed, report.recovered, report.audit.audited) == (3, 0, 1)
    assert (await world.row(completed)).audited_us == world.now_us
    world.engines.deaf = False
    report = await world.sweep()
    assert (report.postponed, report.recovered, report.audit.audited) == (0, 1, 3)
    await world.is_at_rest()


async def test_journals_that_cannot_be_read_let_nothing_be_closed(world):
    request_id = await world.hold()
    world.engines.compute(Tally(request_id, 1, 0, text=5))
    world.engines.mute = True
    with pytest.raises(Overloaded):
        await world.sweep()
    assert (await world.row(request_id)).state == "held"
    world.engines.mute = False
    assert (await world.sweep()).recovered == 1
    await world.is_at_rest()


# Whatever dies, and however many do it.


async def a_bit_of_everything(world: World) -> list[str]:
    abandoned = await world.hold()
    left = await world.hold(disconnected=True)
    unused = await world.hold()
    failed = await world.settled(Outcome.FAILED)
    retried = await world.settled(Outcome.COMPLETED, Charge(2, 0, Tokens(text=20, output=7)))
    world.engines.compute(
        Tally(abandoned, 1, 0, text=20, output=2),
        Tally(left, 1, 0, text=20),
        Tally(left, 2, 0, text=20, output=4),
        Tally(failed, 1, 0, text=20, output=9),
        Tally(retried, 1, 0, text=20, output=1),
        Tally(retried, 2, 0, text=20, output=7),
    )
    return [abandoned, left, unused, failed, retried]


async def test_sweepers_that_overlap_do_everything_once(world):
    """LiteLLM #35569: cleanup counts a second time what was counted already."""
    for _ in range(6):
        await a_bit_of_everything(world)
    reports = await asyncio.gather(*(world.sweep() for _ in range(4)))
    assert sum(report.recovered for report in reports) == 18
    assert sum(report.failed for report in reports) == 0, "they got into each other's way"
    # One may have looked before the other closed.
    await world.sweep()
    await world.is_at_rest()
    async with world.database.read() as connection:
        by_account = Counter(await connection.scalars(select(lines.c.account_id)))
    assert by_account == {WASTE_ACCOUNT: 6 * 7, world.key.team_id: 6 * 4}


async def test_a_sweeper_passes_by_what_another_has_in_hand(postgres_url):
    """Neither waits for the other, both having begun. (SQLite lets only one begin.)"""
    database = Database.open(postgres_url, timeout_s=5)
    books = Books(database)
    world = World(database, await books.key("key"), books)
    await a_bit_of_everything(world)
    await take_in(database, world.engines)
    async with database.read() as connection:
        ids = list(await connection.scalars(select(holds.c.request_id)))
    async with database.write() as first, database.write() as second:
        assert await recover(first, ids, world.now_us) == 3
        assert await recover(second, ids, world.now_us) == 0
    async with database.write() as first, database.write() as second:
        audited = await audit(first, ids, world.now_us, patience_us=0)
        assert audited == Audit(audited=5, wasteful=4)
        assert await audit(second, ids, world.now_us, patience_us=0) == Audit()
    await world.is_at_rest()
    await database.close()


class Killed(BaseException):
    """No handler sees it, as none sees a SIGKILL; the open transaction is lost."""


async def test_a_sweeper_can_be_killed_before_any_statement(world, monkeypatch):
    execute = AsyncConnection.execute
    deaths = 0
    while True:
        await a_bit_of_everything(world)
        left = deaths

        async def or_die(self: AsyncConnection, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return await execute(self, *args, **kwargs)

        with monkeypatch.context() as dying:
            dying.setattr(AsyncConnection, "execute", or_die)
            try:
                await world.sweep()
                break
            except Killed:
                deaths += 1
        await world.sweep()
        await world.is_at_rest()
    assert deaths > 20
    await world.is_at_rest()


async def test_a_hold_that_cannot_be_closed_holds_up_no_other(world, monkeypatch, caplog):
    poisoned, *others = [await world.hold() for _ in range(7)]

    async def close(
        connection: AsyncConnection, closings: Sequence[Closing], now_us: int
    ) -> tuple[str, ...]:
        if any(closing.request_id == poisoned for closing in closings):
            raise ValueError("a bug")
        return await close_holds(connection, closings, now_us)

    monkeypatch.setattr(recovery, "close_holds", close)
    report = await world.sweep()
    assert (report.recovered, report.failed) == (6, 1)
    assert {(await world.row(request_id)).state for request_id in others} == {"voided"}
    assert "cannot be closed" in caplog.text


async def test_more_than_a_page_is_swept_and_those_that_wait_hide_none(world, monkeypatch):
    monkeypatch.setattr(sweeper, "PAGE", 3)
    for _ in range(4):
        await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(output=1)))
    world.now_us += 1
    later = [await world.settled(Outcome.REFUSED) for _ in range(4)]
    one = world.sweeper()
    assert [(await one.sweep()).full for _ in range(3)] == [True, True, False]
    assert {(await world.row(request_id)).audited_us for request_id in later} == {world.now_us}
    assert (await one.sweep()).audit.waiting == 3, "it begins again with those that waited"


# The lease and the other chores.


async def test_one_of_many_gateways_does_the_chores_and_hands_them_over(world):
    done: Counter[str] = Counter()
    rounds = asyncio.Event()

    def gateway(name: str) -> asyncio.Task[None]:
        async def chore() -> None:
            done[name] += 1
            rounds.set()

        return asyncio.create_task(world.sweeper(name, chores=[chore]).run())

    async def another_round() -> None:
        rounds.clear()
        await asyncio.wait_for(rounds.wait(), 10)

    first = gateway("first")
    await another_round()
    second = gateway("second")
    await another_round()
    await another_round()
    assert set(done) == {"first"}
    first.cancel()
    await asyncio.wait([first])
    # It was given back: the clock stands still, so it cannot have run out.
    await another_round()
    assert set(done) == {"first", "second"}
    second.cancel()
    await asyncio.wait([second])


async def test_a_chore_that_fails_stops_neither_itself_nor_the_sweeps(world, caplog):
    request_id = await world.hold()
    calls = 0
    twice = asyncio.Event()

    async def broken() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            twice.set()
        raise ValueError("a bug")

    gateway = asyncio.create_task(world.sweeper(chores=[broken]).run())
    await asyncio.wait_for(twice.wait(), 10)
    while (await world.row(request_id)).state == "held":
        await asyncio.sleep(0.01)
    gateway.cancel()
    await asyncio.wait([gateway])
    assert "a chore failed" in caplog.text


async def test_after_an_outage_gateways_first_renew_their_leases(world, monkeypatch):
    """All leases ran out while nobody could renew any: that proves no gateway dead."""
    request_id = await world.hold()
    tries, rounds = 0, 0
    up = asyncio.Event()
    take = Lease.take

    async def outage(lease):
        nonlocal tries
        tries += 1
        if not up.is_set():
            raise LedgerUnavailable("the database does not answer")
        return await take(lease)

    async def journals_read() -> None:
        nonlocal rounds
        rounds += 1

    monkeypatch.setattr(Lease, "take", outage)
    world.engines.on_journal = journals_read
    gateway = asyncio.create_task(world.sweeper().run())
    async with asyncio.timeout(20):
        while tries < 4:
            await asyncio.sleep(0.01)
        up.set()
        while rounds < 3:
            await asyncio.sleep(0.01)
        assert (await world.row(request_id)).state == "held"
        world.now_us += round(Accounting().hold_lease_s * MICROSECONDS)
        while (await world.row(request_id)).state == "held":
            await asyncio.sleep(0.01)
    gateway.cancel()
    await asyncio.wait([gateway])
