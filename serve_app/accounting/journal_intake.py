"""Reads what the engine counted, in the groups' journals, into ``tallies``.

Counts are cumulative, so a tally only ever grows: reading a stretch twice, out of order or by two
gateways at once changes nothing. A page's tallies and its bookmark are written together.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Protocol

from sqlalchemy import case, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.database import Database
from serve_app.accounting.schema import bookmarks, holds, tallies
from serve_app.accounting.tokens import Kind
from serve_app.accounting.upsert import insert
from serve_app.messages import JournalPage
from shards.tally import Tally

_logger = logging.getLogger(__name__)
_COUNTS = tuple(kind.value for kind in Kind)
# In one statement: stores limit its parameters.
_ROWS = 500


class Journals(Protocol):
    """What is needed here of ``gateway/tiers.py``."""

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]: ...


@dataclass(frozen=True, slots=True)
class Intake:
    """What was read.

    Attributes:
        grown: tallies that are new or have grown.
        reopened: holds whose counts grew after they had been audited; they are audited again.
        strangers: requests for which an engine computed and nobody holds anything.
        lost: bytes of the journals that are damaged or gone; their counts are missing.
    """

    grown: int = 0
    reopened: int = 0
    strangers: int = 0
    lost: int = 0

    def __add__(self, other: Intake) -> Intake:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Intake(*(mine + theirs for mine, theirs in pairs))


async def take_in(database: Database, journals: Journals) -> Intake:
    """Read every journal to where its end was.

    Raises:
        LedgerUnavailable
        ApiError: a journal cannot be read now; what was read before is kept.
    """
    async with database.read() as connection:
        rows = await connection.execute(select(bookmarks.c.group, bookmarks.c.offset))
        marks = {row.group: row.offset for row in rows}
    total = Intake()
    more = True
    while more:
        pages = await journals.journal(marks)
        more = any(page.more for page in pages)
        for page in pages:
            async with database.write() as connection:
                total += await _take_in_page(connection, page)
            # Only now: what lies before a bookmark may be removed.
            marks[page.group] = page.offset
    return total


async def _take_in_page(connection: AsyncConnection, page: JournalPage) -> Intake:
    # In the order of their key, so that two gateways doing the same wait and do not deadlock.
    ordered = sorted(
        page.tallies, key=lambda tally: (tally.request_id, tally.attempt, tally.choice)
    )
    grown: list[str] = []
    for start in range(0, len(ordered), _ROWS):
        grown += await _raise_tallies(connection, page.group, ordered[start : start + _ROWS])
    await _move_bookmark(connection, page.group, page.offset)
    met = await _meet_holds(connection, grown)
    return replace(met, grown=len(grown), lost=page.lost)


async def _raise_tallies(
    connection: AsyncConnection, group: str, read: Sequence[Tally]
) -> list[str]:
    """The requests of those that are new or grew, once for each."""
    statement = insert(connection, tallies)
    was, now = tallies.c, statement.excluded
    statement = statement.on_conflict_do_update(
        index_elements=["request_id", "attempt", "choice"],
        set_={name: case((now[name] > was[name], now[name]), else_=was[name]) for name in _COUNTS},
        where=or_(*(now[name] > was[name] for name in _COUNTS)),
    )
    # Given apart from the statement, which is then compiled once, and not for every number of rows.
    rows = [_row(group, tally) for tally in read]
    return list(await connection.scalars(statement.returning(was.request_id), rows))


async def _move_bookmark(connection: AsyncConnection, group: str, offset: int) -> None:
    statement = insert(connection, bookmarks).values(group=group, offset=offset)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["group"],
            set_={"offset": statement.excluded.offset},
            where=statement.excluded.offset > bookmarks.c.offset,
        )
    )


async def _meet_holds(connection: AsyncConnection, grown: Sequence[str]) -> Intake:
    """Open again what had been audited too early, and tell of work that nobody holds for."""
    reopened, known = 0, set()
    request_ids = sorted(set(grown))
    for start in range(0, len(request_ids), _ROWS):
        some = holds.c.request_id.in_(request_ids[start : start + _ROWS])
        known |= set(await connection.scalars(select(holds.c.request_id).where(some)))
        audited = holds.c.audited_us.is_not(None)
        result = await connection.execute(
            update(holds).where(some, audited).values(audited_us=None)
        )
        reopened += result.rowcount
    strangers = [request_id for request_id in request_ids if request_id not in known]
    if strangers:
        _logger.error(
            "an engine computed for requests without a hold",
            extra={"requests": len(strangers), "first_request_id": strangers[0]},
        )
    return Intake(reopened=reopened, strangers=len(strangers))


def _row(group: str, tally: Tally) -> dict[str, Any]:
    identity = {"request_id": tally.request_id, "attempt": tally.attempt, "choice": tally.choice}
    return {**identity, "group": group, **{name: getattr(tally, name) for name in _COUNTS}}
