"""All that the accounts know of one request: its hold, lines, refunds and the engine's counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.schema import adjustments, holds, lines, tallies
from serve_app.errors import NotFound


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """Rows as they are stored; lines in the order they were written."""

    hold: RowMapping
    lines: tuple[RowMapping, ...]
    adjustments: tuple[RowMapping, ...]
    tallies: tuple[RowMapping, ...]


async def request_record(
    connection: AsyncConnection, request_id: str, *, team_id: int | None = None
) -> RequestRecord:
    """Raises NotFound: no such request, or none of that team's."""
    hold = select(holds).where(holds.c.request_id == request_id)
    if team_id is not None:
        hold = hold.where(holds.c.team_id == team_id)
    found = (await connection.execute(hold)).mappings().one_or_none()
    if found is None:
        raise NotFound("there is no such request", param="request_id")
    of_request = lines.c.request_id == request_id
    refunds = select(adjustments).join(lines).where(of_request).order_by(adjustments.c.id)
    counted = select(tallies).where(tallies.c.request_id == request_id)
    return RequestRecord(
        found,
        await _rows(connection, select(lines).where(of_request).order_by(lines.c.id)),
        await _rows(connection, refunds),
        await _rows(connection, counted.order_by(tallies.c.attempt, tallies.c.choice)),
    )


async def _rows(connection: AsyncConnection, query: Select[Any]) -> tuple[RowMapping, ...]:
    return tuple((await connection.execute(query)).mappings())
