import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest
from sqlalchemy import select

from serve_app.accounting.database import Database
from serve_app.accounting.journal_intake import Intake, take_in
from serve_app.accounting.schema import bookmarks, tallies
from serve_app.messages import JournalPage
from shards.tally import Tally
from tests.serve_app.accounting.fake_engines import FakeEngines


@pytest.fixture
def engines() -> FakeEngines:
    return FakeEngines()


async def counted(database: Database) -> dict[tuple[str, int, int], tuple[int, ...]]:
    async with database.read() as connection:
        rows = await connection.execute(select(tallies))
        return {
            (row.request_id, row.attempt, row.choice): (
                row.text,
                row.image,
                row.cached_text,
                row.cached_image,
                row.output,
            )
            for row in rows
        }


async def marked(database: Database) -> dict[str, int]:
    async with database.read() as connection:
        rows = await connection.execute(select(bookmarks.c.group, bookmarks.c.offset))
        return {row.group: row.offset for row in rows}


async def test_every_page_of_every_group_is_read_once(database, engines):
    ids = [f"request-{number}" for number in range(10)]
    engines.compute(*(Tally(name, 1, 0, text=7, output=1) for name in ids))
    engines.compute(Tally("request-0", 2, 0, image=5), Tally("request-0", 2, 1), group="group-2")
    # Nobody holds for them here: that is told, and does not keep them from being counted.
    assert await take_in(database, engines) == Intake(grown=12, strangers=11)
    assert await marked(database) == {"group-1": 10, "group-2": 2}
    found = await counted(database)
    assert len(found) == 12
    assert found["request-9", 1, 0] == (7, 0, 0, 0, 1)
    assert found["request-0", 2, 0] == (0, 5, 0, 0, 0)
    assert await take_in(database, engines) == Intake()


async def test_counts_only_grow(database, engines):
    tally = Tally(
        "request", 1, 0, text=4, cached_text=16, cached_image=3, output=9, rejected_draft=2
    )
    engines.compute(tally)
    await take_in(database, engines)
    engines.compute(replace(tally, text=1, cached_text=0, output=10))
    assert (await take_in(database, engines)).grown == 1
    engines.compute(replace(tally, output=2))
    assert (await take_in(database, engines)).grown == 0
    assert await counted(database) == {("request", 1, 0): (4, 0, 16, 3, 10)}


async def test_the_same_stretch_read_twice_and_late_changes_nothing(database, engines):
    """As by a gateway that was paused while another went on."""
    engines.compute(*(Tally("request", 1, 0, output=count) for count in range(1, 8)))
    early = await engines.journal({})
    await take_in(database, engines)

    class Late:
        def __init__(self) -> None:
            self.answers: list[tuple[JournalPage, ...]] = [early, ()]

        async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
            return self.answers.pop(0)

    assert await take_in(database, Late()) == Intake()
    assert await counted(database) == {("request", 1, 0): (0, 0, 0, 0, 7)}
    assert await marked(database) == {"group-1": 7}


async def test_gateways_that_read_at_once_do_not_disturb_each_other(database, engines):
    for number in range(30):
        engines.compute(Tally(f"request-{29 - number}", 1, 0, output=number + 1))
        engines.compute(Tally(f"request-{number}", 2, 0, output=2), group="group-2")
    read = await asyncio.gather(*(take_in(database, engines) for _ in range(4)))
    assert sum(intake.grown for intake in read) == 60, "each growth was seen by one of them"
    assert sum(row[-1] for row in (await counted(database)).values()) == 30 * 31 // 2 + 60


async def test_tallies_and_bookmark_are_written_together(database, engines, monkeypatch):
    """Killed between the two, a gateway would lose counts (bookmark first) or have the next one
    read them again (harmless, but the whole journal of a busy group)."""
    from serve_app.accounting import journal_intake

    async def killed(*_: object) -> None:
        raise SystemExit

    engines.compute(Tally("request", 1, 0, output=5))
    with monkeypatch.context() as dying:
        dying.setattr(journal_intake, "_meet_holds", killed)
        with pytest.raises(SystemExit):
            await take_in(database, engines)
    assert (await counted(database), await marked(database)) == ({}, {})
    await take_in(database, engines)
    assert await counted(database) == {("request", 1, 0): (0, 0, 0, 0, 5)}


async def test_a_page_of_thousands_is_taken_in_whole(database):
    class Long:
        async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
            many = tuple(Tally(f"request-{number}", 1, 0, output=1) for number in range(2_345))
            return (JournalPage("group-1", 99, many, lost=7),)

    found = await take_in(database, Long())
    assert found == Intake(grown=2_345, strangers=2_345, lost=7)
    assert len(await counted(database)) == 2_345


async def test_reading_ends_although_a_busy_group_writes_on(database, engines):
    """Its journal has more a moment later, always."""

    async def write_on() -> None:
        engines.compute(Tally("request", 1, 0, output=sum(map(len, engines.journals.values())) + 1))

    engines.on_journal = write_on
    assert (await take_in(database, engines)).grown == 1
    assert (await take_in(database, engines)).grown == 1
