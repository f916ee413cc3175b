"""Callers that vanish and stores that fail, at the worst moments: nothing leaks or is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.accounts import Balance
from serve_app.accounting.database import Database
from serve_app.accounting.hold import HoldState, Outcome, Settlement
from serve_app.accounting.schema import holds
from serve_app.errors import LedgerUnavailable
from tests.serve_app.accounting.shop import AMOUNT, NOON_US, Shop, charge

COMPLETED = Settlement(Outcome.COMPLETED, (charge(text=100, image=20, output=10),))
CHARGED = 300_000


class Unreliable:
    """A database between the ledger and the real one: it can be out, slow to commit, or lose the
    word of a commit that has happened."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.out = False
        self.lost_words = 0
        self.faults: list[Exception] = []
        self.begun = asyncio.Event()
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.database, name)

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        return self._write()

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[AsyncConnection]:
        if self.out:
            raise LedgerUnavailable("out")
        if self.faults:
            raise self.faults.pop()
        async with self.database.write() as connection:
            yield connection
            self.begun.set()
            await self.may_commit.wait()
        if self.lost_words:
            self.lost_words -= 1
            raise LedgerUnavailable("the connection was lost while the transaction was committed")


@pytest.fixture
def store(database):
    return Unreliable(database)


@pytest.fixture
async def ledger(shop, store):
    async with shop.ledger(store, hold_timeout_s=0.5) as ledger:
        yield ledger


async def settled_away(shop: Shop, request_id: str) -> Any:
    """The hold's row once it has ended."""
    async with asyncio.timeout(10):
        while (row := await shop.hold_row(request_id)) is None or row.state == HoldState.HELD:
            await asyncio.sleep(0.02)
    return row


async def test_a_hold_whose_commit_was_not_heard_of_is_found_and_not_made_twice(
    shop, ledger, store
):
    store.lost_words = 1
    hold = await ledger.hold(shop.request())
    assert await shop.balance(shop.payer.team_id) == Balance(0, AMOUNT)
    assert (await shop.account_row(shop.payer.team_id)).concurrent == 1
    await ledger.settle(hold, COMPLETED)
    assert await shop.balance(shop.payer.team_id) == Balance(CHARGED, 0)


async def test_a_settlement_whose_commit_was_not_heard_of_is_not_booked_twice(shop, ledger, store):
    hold = await ledger.hold(shop.request())
    store.lost_words = 2
    await ledger.settle(hold, COMPLETED)
    assert await shop.balance(shop.payer.team_id) == Balance(CHARGED, 0)


async def test_a_hold_that_cannot_be_written_is_refused_in_time_and_leaves_nothing(
    shop, ledger, store
):
    store.out = True
    with pytest.raises(LedgerUnavailable):
        await ledger.hold(shop.request())
    store.out = False
    await ledger.hold(shop.request())
    assert len(await shop.rows(holds)) == 1


async def test_a_hold_that_was_refused_in_time_and_committed_late_is_voided(shop, ledger, store):
    store.may_commit.clear()
    with pytest.raises(LedgerUnavailable):
        await ledger.hold(shop.request("late"))
    store.may_commit.set()
    row = await settled_away(shop, "late")
    assert (row.state, row.outcome) == (HoldState.VOIDED, Outcome.REFUSED)
    assert await shop.balance(shop.payer.team_id) == Balance(0, 0)


async def test_a_hold_committed_without_a_word_and_then_given_up_is_voided(shop, ledger, store):
    store.lost_words = 1
    holding = asyncio.create_task(ledger.hold(shop.request("unheard")))
    await store.begun.wait()
    holding.cancel()
    assert (await settled_away(shop, "unheard")).state == HoldState.VOIDED


@pytest.mark.parametrize("committing", [False, True])
async def test_a_cancelled_caller_leaves_no_hold(shop, ledger, store, committing):
    """Before the transaction begins, and while it commits."""
    store.may_commit.clear()
    if not committing:
        blocking = asyncio.create_task(ledger.hold(shop.request("first")))
        await store.begun.wait()
    holding = asyncio.create_task(ledger.hold(shop.request("cancelled")))
    await (store.begun.wait() if committing else asyncio.sleep(0))
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    store.may_commit.set()
    if committing:
        assert (await settled_away(shop, "cancelled")).state == HoldState.VOIDED
    else:
        await ledger.settle(await blocking, COMPLETED)
        assert await shop.hold_row("cancelled") is None


async def test_a_settlement_survives_its_callers_cancellation(shop, ledger, store):
    hold = await ledger.hold(shop.request())
    store.may_commit.clear()
    settling = asyncio.create_task(ledger.settle(hold, COMPLETED))
    await asyncio.sleep(0)
    settling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await settling
    store.may_commit.set()
    assert (await settled_away(shop, hold.request_id)).outcome == Outcome.COMPLETED


async def test_settlements_outlast_an_outage(shop, ledger, store):
    held = [await ledger.hold(shop.request()) for _ in range(5)]
    store.out = True
    settling = [asyncio.create_task(ledger.settle(hold, COMPLETED)) for hold in held]
    await asyncio.sleep(0.7)  # longer than a hold would wait
    assert not any(task.done() for task in settling)
    store.out = False
    await asyncio.gather(*settling)
    assert await shop.balance(shop.payer.team_id) == Balance(5 * CHARGED, 0)


async def test_closing_writes_what_waits(shop):
    async with shop.ledger() as ledger:
        held = [await ledger.hold(shop.request()) for _ in range(5)]
        settling = [asyncio.create_task(ledger.settle(hold, COMPLETED)) for hold in held]
        await asyncio.sleep(0)
    await asyncio.gather(*settling)
    assert await shop.balance(shop.payer.team_id) == Balance(5 * CHARGED, 0)
    with pytest.raises(LedgerUnavailable):
        await ledger.hold(shop.request())


async def test_nothing_of_a_caller_reaches_the_transaction(shop, store):
    """Ray Serve cancels by context whatever a request's tasks have begun."""
    mark: ContextVar[str] = ContextVar("mark", default="nobody")
    seen = []

    class Watching(Unreliable):
        def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
            seen.append(mark.get())
            return super().write()

    mark.set("a request")
    async with shop.ledger(Watching(shop.database)) as ledger:
        await ledger.hold(shop.request())
    assert seen == ["nobody"]


async def test_one_renewal_that_fails_is_not_the_last(shop, store):
    async with shop.ledger(store, hold_lease_s=2) as ledger:
        hold = await ledger.hold(shop.request())
        shop.pass_s(1)
        store.faults = [RuntimeError("a bug")]
        async with asyncio.timeout(10):
            while (await shop.hold_row(hold.request_id)).lease_until_us != NOON_US + 3_000_000:
                await asyncio.sleep(0.05)
        assert store.faults == []


async def test_a_killed_server_is_outlasted(postgres, postgres_url):
    """PostgreSQL dies with holds open, and while settlements wait; they are written when it is
    back, once."""
    database = Database.open(postgres_url, timeout_s=2.0)
    shop = await Shop.open(database)
    async with shop.ledger() as ledger:
        held = [await ledger.hold(shop.request()) for _ in range(3)]
        postgres.kill()
        try:
            settling = [asyncio.create_task(ledger.settle(hold, COMPLETED)) for hold in held]
            holding = asyncio.create_task(ledger.hold(shop.request()))
            await asyncio.sleep(0.3)
        finally:
            postgres.start()
        await asyncio.gather(*settling)
        await ledger.settle(await holding, COMPLETED)
    assert await shop.balance(shop.payer.team_id) == Balance(4 * CHARGED, 0)
    await database.close()


async def test_a_paused_server_is_outlasted(postgres, postgres_url):
    database = Database.open(postgres_url, timeout_s=0.5)
    shop = await Shop.open(database)
    async with shop.ledger() as ledger:
        hold = await ledger.hold(shop.request())
        with postgres.paused():
            settling = asyncio.create_task(ledger.settle(hold, COMPLETED))
            holding = asyncio.create_task(ledger.hold(shop.request()))
            await asyncio.sleep(1.5)
        await settling
        await ledger.settle(await holding, COMPLETED)
    assert await shop.balance(shop.payer.team_id) == Balance(2 * CHARGED, 0)
    await database.close()
