"""The books are right to the nano-dollar after callers left, processes were killed, the store hung.

A short form runs with all tests; ``make soak`` runs the long one (PIXTRAL_SOAK=1): 500 requests at
concurrency 32, ten kills, two pauses of three seconds.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import ANY

import pytest

from tests.chaos.arena import LEASE_S, Arena, Store, arena
from tests.chaos.havoc import Killer, Progress, sqlite_paused, wreak
from tests.chaos.traffic import Caller, Ending, rush
from tests.chaos.verdict import Books, overdrawn, unsettled
from tests.postgres import PostgresServer


@dataclass(frozen=True)
class Form:
    requests: int
    concurrency: int
    kills: int
    pauses: int
    timeout_s: int


SHORT = Form(requests=60, concurrency=16, kills=2, pauses=1, timeout_s=420)
LONG = Form(requests=500, concurrency=32, kills=10, pauses=2, timeout_s=1800)
FORM = LONG if os.environ.get("PIXTRAL_SOAK") == "1" else SHORT
SEED = int(os.environ.get("PIXTRAL_SOAK_SEED", "7042"))

# Some hundred thousand nano-dollars are held for a request, and half of that is spent.
BUDGET_PER_REQUEST = 45_000

_logger = logging.getLogger(__name__)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(FORM.timeout_s)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(params=["sqlite, one gateway", "postgresql, three gateways"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param.startswith("sqlite"):
        path = tmp_path / "ledger.db"
        yield Store(f"sqlite:///{path}", 1, lambda: sqlite_paused(path))
        return
    server = PostgresServer()
    try:
        server.start()
        yield Store(server.create("ledger"), 3, server.paused)
    finally:
        server.close()


@pytest.fixture
def running(store: Store, tmp_path: Path, cache: Path) -> Iterator[Arena]:
    with arena(tmp_path, cache, store) as system:
        yield system


async def test_the_books_are_right_whatever_died(running: Arena) -> None:
    dice = random.Random(SEED)
    keys = await running.open_accounts(BUDGET_PER_REQUEST * FORM.requests)
    callers = [
        Caller(running.url, running.model, dice.choice(list(keys.values())), _fork(dice))
        for _ in range(FORM.requests)
    ]
    progress = Progress(FORM.requests)
    killer = Killer(running.home, _fork(dice))
    watch = asyncio.create_task(_watch_budgets(running.store.url))

    seen, _ = await asyncio.gather(
        rush(callers, FORM.concurrency, progress.tick),
        wreak(progress, killer, FORM.kills, FORM.pauses, running.store.paused),
    )
    await _at_rest(running.store.url)
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch

    books = await Books.read(running.store.url, running.journals)
    endings = Counter(str(call.ending) for call in seen)
    outcomes = Counter(str(hold["outcome"]) for hold in books.holds.values())
    _logger.info("%s %s killed: %s", dict(endings), dict(outcomes), dict(Counter(killer.killed)))
    _logger.info(
        "nano-dollars: teams %d + waste %d = journals %d",
        books.team_nano_usd,
        books.waste_nano_usd,
        books.journal_nano_usd,
    )

    assert list(books.problems()) == []
    assert list(books.grievances(seen)) == []
    assert books.team_nano_usd + books.waste_nano_usd == books.journal_nano_usd
    _havoc_was_wrought(books, endings, outcomes, killer)
    assert await asyncio.to_thread(running.reconciliation) == (0, ANY)


def _havoc_was_wrought(
    books: Books, endings: Counter[str], outcomes: Counter[str], killer: Killer
) -> None:
    """Otherwise the test has shown nothing."""
    assert len(killer.killed) == FORM.kills
    assert endings[Ending.ANSWERED] > FORM.requests / 4
    assert endings[Ending.LEFT] > FORM.requests / 20
    assert endings[Ending.REFUSED], "no budget was ever exhausted"
    assert outcomes["disconnected"], "nobody left in the middle of an answer"
    assert outcomes["recovered"] or outcomes["failed"], "nothing was killed at work"
    assert books.team_nano_usd > 0
    assert books.waste_nano_usd > 0


async def _watch_budgets(url: str) -> None:
    """Postings and holds together never exceed a budget, at any moment."""
    while True:
        with suppress(OSError, TimeoutError):
            assert await overdrawn(url) == []
        await asyncio.sleep(0.2)


async def _at_rest(url: str) -> None:
    """The lease of what was killed last runs out, then a sweep or two."""
    async with asyncio.timeout(LEASE_S + 90):
        while await unsettled(url):
            await asyncio.sleep(0.5)


def _fork(dice: random.Random) -> random.Random:
    return random.Random(dice.getrandbits(64))
