"""The audit log: who changed what and when, written in the transaction that changed it.

Append-only by trigger. Entries name keys by their public id and webhooks by their host: no secret
is ever part of one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.database import Database
from serve_app.accounting.schema import audit_log

MAX_ENTRIES = 1_000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change.

    Attributes:
        actor: a key's public id, or the command line's user.
        subject: what was changed, as ``team research/vision``.
        detail: what it was and became; JSON.
    """

    id: int
    at_us: int
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


async def record(
    connection: AsyncConnection,
    *,
    at_us: int,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, Any],
) -> None:
    """Note a change inside the caller's transaction, so that neither is ever without the other."""
    await connection.execute(
        insert(audit_log).values(
            at_us=at_us, actor=actor, action=action, subject=subject, detail=dict(detail)
        )
    )


@dataclass(frozen=True, slots=True)
class Change:
    """A transaction that somebody asked for."""

    connection: AsyncConnection
    actor: str
    at_us: int

    async def record(self, action: str, subject: str, detail: Mapping[str, Any]) -> None:
        await record(
            self.connection,
            at_us=self.at_us,
            actor=self.actor,
            action=action,
            subject=subject,
            detail=detail,
        )


async def entries(
    database: Database, *, before_id: int | None = None, limit: int = 100
) -> tuple[AuditEntry, ...]:
    """The newest first; the next page begins ``before_id`` the last one's id."""
    query = select(audit_log).order_by(audit_log.c.id.desc()).limit(min(limit, MAX_ENTRIES))
    if before_id is not None:
        query = query.where(audit_log.c.id < before_id)
    async with database.read() as connection:
        rows = (await connection.execute(query)).mappings()
        return tuple(AuditEntry(**row) for row in rows)


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What changed, as ``{field: [was, is]}``: the detail of an entry.

    >>> difference({"budget": 1, "rate": 2}, {"budget": 3, "rate": 2})
    {'budget': [1, 3]}
    """
    return {
        field: [before.get(field), value]
        for field, value in after.items()
        if before.get(field) != value
    }
