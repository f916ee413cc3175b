"""Engine to books: what drafts cost is waste, to the token, whatever becomes of their requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import func, select

from serve_app.accounting.database import Database
from serve_app.accounting.hold import Outcome
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.schema import WASTE_ACCOUNT, lines
from serve_app.accounting.tokens import Kind
from serve_app.decoder.journal import JournalWriter
from serve_app.decoder.journal_reader import read_journals
from serve_app.gateway.usage import Meter
from serve_app.messages import JournalPage
from shards.request import Delta
from tests.serve_app.accounting.books import PRICES, Books
from tests.serve_app.accounting.fake_engines import FakeEngines
from tests.serve_app.accounting.sweeping import World
from tests.shards.engine_fixtures import VOCAB_SIZE, WatchedRunner, simulated_engine, text_request
from tests.shards.repeating import repeating


class Group:
    """A real engine that guesses ahead and runs out of room, and its journal on disk."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.engine, self.runner = simulated_engine(
            repeating(VOCAB_SIZE),
            max_drafts=5,
            max_step_tokens=32,
            num_blocks=40,
            headroom_tokens=0,
        )
        self.deltas: list[Delta] = []
        self._journal = JournalWriter(folder, name)

    def step(self) -> None:
        self._note(self.engine.step())

    def abort(self, request_id: str) -> bool:
        """Whether it ran."""
        last = self.engine.abort(request_id)
        self._note(last)
        return bool(last)

    def drain(self) -> None:
        while self.engine.has_work:
            self.step()

    @property
    def wasted(self) -> int:
        """Drafts that the runner computed, less those that brought a token."""
        return _drafts(self.runner) - sum(max(len(one.token_ids) - 1, 0) for one in self.deltas)

    def meter(self, request_id: str) -> Meter:
        """What a gateway heard of a request."""
        meter = Meter()
        for delta in self.deltas:
            if delta.request_id == request_id:
                meter.read(delta)
        return meter

    def _note(self, deltas: Sequence[Delta]) -> None:
        self._journal.append(self.engine.tallies())
        self.deltas += deltas


def _drafts(runner: WatchedRunner) -> int:
    return sum(len(advance.drafts) for plan in runner.ran for advance in plan.advances)


@dataclass
class Groups(FakeEngines):
    """Both groups, as a gateway's tiers show them."""

    folder: Path
    groups: tuple[Group, ...]

    async def abort(self, request_ids: Sequence[str]) -> None:
        for request_id in request_ids:
            for group in self.groups:
                group.abort(request_id)

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        return read_journals(self.folder, bookmarks, 0.0)

    async def computed(self) -> Mapping[str, int]:
        return {group.name: group.engine.stats().tallied for group in self.groups}


@pytest.fixture
async def world(database: Database) -> World:
    books = Books(database)
    return World(database, await books.key("key"), books)


async def test_the_waste_is_what_was_drafted_and_not_accepted(world, tmp_path):
    first, second = Group(tmp_path, "first"), Group(tmp_path, "second")
    world.engines = Groups(tmp_path, (first, second))
    completed = [await world.hold(expired=False) for _ in range(5)]
    left = [await world.hold(expired=False) for _ in range(2)]
    failed = [await world.hold(expired=False) for _ in range(2)]
    retried = await world.hold(expired=False)
    orphan = await world.hold(expired=True, disconnected=True)
    everyone = [*completed, *left, *failed, retried, orphan]
    for number, request_id in enumerate(everyone):
        choices = {"n": 1 + number % 3, "max_tokens": 30, "ignore_eos": True, "seed": number}
        first.engine.add(text_request(request_id, "abcabdabcabe"[number:] + "abcab", **choices))
    for _ in range(40):
        first.step()
    for request_id in (*left, *failed):
        assert first.abort(request_id)
    # The group is lost for one of them; another one goes on where it was, and the first is told.
    again = text_request(retried, "abcabdabcabeabcab", max_tokens=30, ignore_eos=True, seed=9)
    second.engine.add(replace(again, attempt=2))
    assert first.abort(retried)
    second.drain()
    for request_id in completed:
        while first.engine.has_work and request_id in first.engine._generations:
            first.step()
    assert first.engine.stats().put_back_total > 0

    for request_id in completed:
        await world.settle(request_id, Outcome.COMPLETED, *first.meter(request_id).charges)
    await world.settle(retried, Outcome.COMPLETED, *second.meter(retried).charges)
    for request_id in left:
        await world.settle(request_id, Outcome.DISCONNECTED, *first.meter(request_id).charges)
    for request_id in failed:
        await world.settle(request_id, Outcome.FAILED)
    # It may be running still: its gateway died, and the sweeper ends it.
    report = await world.sweep()
    assert report.recovered == 1

    wasted = first.wasted + second.wasted
    stats = (first.engine.stats(), second.engine.stats())
    assert sum(one.rejected_tokens_total for one in stats) == wasted > 20
    async with world.database.read() as connection:
        of_drafts = (
            select(lines.c.account_id, func.sum(lines.c.tokens), func.sum(lines.c.nano_usd))
            .where(lines.c.kind == Kind.REJECTED_DRAFT)
            .group_by(lines.c.account_id)
        )
        booked = [tuple(row) for row in await connection.execute(of_drafts)]
        assert booked == [(WASTE_ACCOUNT, wasted, wasted * PRICES["output"])]
        assert (await reconcile(connection, engines=world.engines.computed)).engines == (
            "first",
            "second",
        )
    await world.is_at_rest()
