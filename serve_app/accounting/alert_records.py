"""Soft budget thresholds that were crossed, and what became of telling somebody."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.schema import accounts, alerts


@dataclass(frozen=True, slots=True)
class AlertRecord:
    """Delivered, given up, or still to be tried. Amounts are those when it was crossed."""

    scope: str
    name: str
    month: str
    percent: int
    posted_nano_usd: int
    budget_nano_usd: int
    created_us: int
    attempts: int
    delivered_us: int | None
    given_up_us: int | None


async def alert_records(connection: AsyncConnection, month: str) -> tuple[AlertRecord, ...]:
    """Of one month, the newest first."""
    query = (
        select(
            accounts.c.scope,
            accounts.c.name,
            alerts.c.month,
            alerts.c.percent,
            alerts.c.posted_nano_usd,
            alerts.c.budget_nano_usd,
            alerts.c.created_us,
            alerts.c.attempts,
            alerts.c.delivered_us,
            alerts.c.given_up_us,
        )
        .join(accounts, accounts.c.id == alerts.c.account_id)
        .where(alerts.c.month == month)
        .order_by(alerts.c.id.desc())
    )
    rows = (await connection.execute(query)).mappings()
    return tuple(AlertRecord(**row) for row in rows)
