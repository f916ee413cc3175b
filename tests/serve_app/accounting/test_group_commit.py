"""Many gateways, many requests, few transactions, and no budget ever overrun."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import event

from serve_app.accounting.accounts import Balance
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Hold, Outcome, Settlement
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.writer import MAX_BATCH, Writer
from serve_app.errors import BudgetExhausted, LedgerError, LedgerUnavailable
from tests.serve_app.accounting.shop import AMOUNT, charge

COMPLETED = Settlement(Outcome.COMPLETED, (charge(text=100, image=20, output=10),))


async def test_of_200_concurrent_holds_of_three_gateways_exactly_those_that_fit_succeed(
    shop, store_url
):
    """Check and increment are one step: no race lets one more in, none is refused wrongly."""
    await shop.limit(shop.payer.organisation_id, budget_nano_usd=37 * AMOUNT + AMOUNT // 2)
    other = await shop.team_and_key("other", "droid")
    databases = [Database.open(store_url) for _ in range(3)]
    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(shop.ledger(database, owner=f"gateway-{number}"))
            for number, database in enumerate(databases)
        ]
        results = await asyncio.gather(
            *(
                ledgers[number % 3].hold(shop.request(payer=shop.payer if number % 2 else other))
                for number in range(200)
            ),
            return_exceptions=True,
        )
    for database in databases:
        await database.close()
    assert sum(isinstance(result, Hold) for result in results) == 37
    assert sum(isinstance(result, BudgetExhausted) for result in results) == 163
    assert (await shop.balance(shop.payer.organisation_id)).held == 37 * AMOUNT


_GATEWAY = """
import asyncio, json, sys
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Hold
from serve_app.errors import BudgetExhausted
from tests.serve_app.accounting.shop import Shop
async def main(url, name, payer, prices):
    from serve_app.accounting.hold import Payer
    from serve_app.accounting.prices import PriceSheet
    database = Database.open(url)
    shop = Shop(database, Payer(*payer), PriceSheet(**prices))
    async with shop.ledger(owner=name) as ledger:
        holds = [ledger.hold(shop.request(f"{name}-{i}")) for i in range(50)]
        found = await asyncio.gather(*holds, return_exceptions=True)
    await database.close()
    assert all(isinstance(item, Hold | BudgetExhausted) for item in found), found
    print(sum(isinstance(item, Hold) for item in found))
asyncio.run(main(*json.loads(sys.argv[1])))
"""


async def test_gateways_in_processes_of_their_own_share_a_budget_exactly(shop, store_url):
    await shop.limit(shop.payer.team_id, budget_nano_usd=61 * AMOUNT)
    prices = {name: getattr(shop.prices, name) for name in shop.prices.__slots__}
    processes = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", _GATEWAY),
                json.dumps([store_url, f"gateway-{number}", shop.payer.account_ids, prices]),
            ],
            stdout=subprocess.PIPE,
        )
        for number in range(2)
    ]
    outputs = [(await asyncio.to_thread(process.communicate))[0] for process in processes]
    assert sum(map(int, outputs)) == 61
    assert (await shop.balance(shop.payer.team_id)).held == 61 * AMOUNT


async def test_what_waits_shares_a_transaction(shop, database):
    commits = 0

    def count(connection: object) -> None:
        nonlocal commits
        commits += 1

    event.listen(database._writer.sync_engine, "commit", count)
    async with shop.ledger() as ledger:
        held = await asyncio.gather(*(ledger.hold(shop.request()) for _ in range(300)))
        await asyncio.gather(*(ledger.settle(hold, COMPLETED) for hold in held))
    assert 2 <= commits <= 12
    assert (await shop.balance(shop.payer.team_id)).held == 0


async def test_busy_gateways_hold_and_settle_side_by_side(shop, store_url):
    """Both lock the same organisation, from both ends, for a while: no deadlock, nothing lost."""
    databases = [Database.open(store_url) for _ in range(2)]
    payers = [shop.payer, await shop.team_and_key("other", "droid")]

    async def serve(ledger, number: int) -> None:
        for turn in range(10):
            hold = await ledger.hold(shop.request(payer=payers[(number + turn) % 2]))
            await ledger.settle(hold, COMPLETED)

    async with AsyncExitStack() as stack:
        ledgers = [
            await stack.enter_async_context(shop.ledger(database, owner=f"gateway-{number}"))
            for number, database in enumerate(databases)
        ]
        await asyncio.gather(*(serve(ledgers[number % 2], number) for number in range(16)))
    for database in databases:
        await database.close()
    assert await shop.balance(shop.payer.organisation_id) == Balance(160 * 300_000, 0)
    async with shop.database.read() as connection:
        found = await reconcile(connection)
    assert [item for item in found.differences if item.what != "journal"] == []


# The writer by itself


class Store:
    """Takes integers; refuses 13 as wrong, and everything while it is out."""

    def __init__(self) -> None:
        self.out = False
        self.batches: list[list[int]] = []
        self.tries = 0

    async def commit(self, jobs) -> list[int]:
        self.tries += 1
        await asyncio.sleep(0)
        if self.out:
            raise LedgerUnavailable("out")
        if any(job.work == 13 for job in jobs):
            raise LedgerError("thirteen")
        self.batches.append([job.work for job in jobs])
        return [10 * job.work for job in jobs]


@pytest.fixture
def store():
    return Store()


@pytest.fixture
async def writer(store):
    writer: Writer[int] = Writer(store.commit)
    writer.start()
    yield writer
    await writer.close(1.0)


async def test_everybody_gets_an_own_result_in_order(writer, store):
    results = await asyncio.gather(*(writer.submit(number) for number in range(5)))
    assert results == [0, 10, 20, 30, 40]
    assert store.batches == [[0, 1, 2, 3, 4]]


async def test_batches_are_bounded(writer, store):
    await asyncio.gather(*(writer.submit(number + 100) for number in range(MAX_BATCH + 1)))
    assert [len(batch) for batch in store.batches] == [MAX_BATCH, 1]


async def test_what_is_wrong_with_one_fails_that_one_alone(writer):
    results = await asyncio.gather(
        *(writer.submit(number) for number in (12, 13, 14)), return_exceptions=True
    )
    assert results[0] == 120
    assert isinstance(results[1], LedgerError)
    assert results[2] == 140
    assert await writer.submit(15) == 150


async def test_an_outage_is_waited_out_and_what_nobody_waits_for_is_dropped(writer, store):
    store.out = True
    patient, dropped = writer.submit(1), writer.submit(2, droppable=True)
    while not store.tries:
        await asyncio.sleep(0.01)
    dropped.cancel()
    patient.cancel()
    store.out = False
    assert await writer.submit(3) == 30
    assert store.batches == [[1, 3]]


async def test_closing_writes_what_waits_and_takes_nothing_more(writer, store):
    waiting = [writer.submit(number) for number in range(3)]
    await writer.close(1.0)
    assert [future.result() for future in waiting] == [0, 10, 20]
    with pytest.raises(LedgerUnavailable):
        writer.submit(4)


async def test_closing_during_an_outage_gives_up_in_time_and_says_so(writer, store):
    store.out = True
    waiting = writer.submit(1)
    await writer.close(0.2)
    with pytest.raises(LedgerUnavailable):
        await waiting
