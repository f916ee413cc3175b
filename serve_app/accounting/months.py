"""Closes months: from then on their totals are as they were, to the nano-dollar, for ever.

A month can be closed an hour after its end, once every hold of it has ended and was compared with
the engine's journal. The store then refuses holds, lines and adjustments of that month; what comes
to light later is booked in the open one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import FromClause, Select, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.audit import record
from serve_app.accounting.calendar import MICROSECONDS, Clock, month_of, now_us
from serve_app.accounting.database import Database, freeze_tables
from serve_app.accounting.hold import HoldState
from serve_app.accounting.schema import OF_A_MONTH, WASTE_ACCOUNT, adjustments, holds, lines, months
from serve_app.accounting.sums import total
from serve_app.errors import Conflict, InvalidRequest

# Clocks of gateways differ by less.
GRACE_S = 3_600
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")


@dataclass(frozen=True, slots=True)
class AccountTotal:
    """Of a team, or of waste: what its lines cost, and what it was given back (to waste: bore)."""

    account_id: int
    tokens: int
    nano_usd: int
    adjusted_nano_usd: int


@dataclass(frozen=True, slots=True)
class MonthTotals:
    """What a month's lines and adjustments add up to.

    Attributes:
        revenue_nano_usd: of all lines, waste among them.
    """

    month: str
    requests: int
    lines: int
    revenue_nano_usd: int
    accounts: tuple[AccountTotal, ...]

    @classmethod
    def of_json(cls, totals: Mapping[str, Any]) -> MonthTotals:
        accounts = tuple(AccountTotal(**account) for account in totals["accounts"])
        return cls(**{**totals, "accounts": accounts})


@dataclass(frozen=True, slots=True)
class MonthStatus:
    """``open_holds`` and ``unaudited_holds`` must be 0 before it can be closed."""

    totals: MonthTotals
    open_holds: int
    unaudited_holds: int
    closed_us: int | None = None
    closed_by: str | None = None


async def month_status(database: Database, month: str) -> MonthStatus:
    """How a month stands now, or stood when it was closed.

    Raises:
        InvalidRequest: not a month.
        LedgerUnavailable
    """
    _require_month(month)
    async with database.read() as connection:
        return await _status(connection, month)


async def close_month(
    database: Database, month: str, *, actor: str, clock: Clock = now_us
) -> MonthTotals:
    """Close it; closing it again changes nothing and tells the same.

    Raises:
        InvalidRequest: not a month.
        Conflict: it is not over, or requests of it are running or not yet audited.
        LedgerUnavailable
    """
    _require_month(month)
    if month >= month_of(clock() - GRACE_S * MICROSECONDS):
        raise Conflict(f"{month} can be closed an hour after its end", param="month")
    async with database.write() as connection:
        # What is being written of this month is either counted below, or refused after.
        await freeze_tables(connection, OF_A_MONTH)
        status = await _status(connection, month)
        if status.closed_us is not None:
            return status.totals
        if status.open_holds or status.unaudited_holds:
            raise Conflict(
                f"{month}: {status.open_holds} requests are running and {status.unaudited_holds} "
                "are not yet compared with the engine's journal",
                param="month",
            )
        at_us = clock()
        values = {"month": month, "closed_us": at_us, "closed_by": actor}
        await connection.execute(insert(months).values(**values, totals=asdict(status.totals)))
        detail = {"revenue_nano_usd": str(status.totals.revenue_nano_usd)}
        await record(
            connection, at_us=at_us, actor=actor, action="close", subject=month, detail=detail
        )
        return status.totals


async def _status(connection: AsyncConnection, month: str) -> MonthStatus:
    of_month = (holds.c.month == month, holds.c.audited_us.is_(None))
    running, unaudited = (
        await connection.execute(
            select(
                func.count().filter(holds.c.state == HoldState.HELD),
                func.count().filter(holds.c.state != HoldState.HELD),
            ).where(*of_month)
        )
    ).one()
    closed = (await connection.execute(select(months).where(months.c.month == month))).one_or_none()
    if closed is None:
        return MonthStatus(await _totals(connection, month), running, unaudited)
    totals = MonthTotals.of_json(closed.totals)
    return MonthStatus(totals, running, unaudited, closed.closed_us, closed.closed_by)


async def _totals(connection: AsyncConnection, month: str) -> MonthTotals:
    requests = select(func.count()).select_from(holds).where(holds.c.month == month)
    charged = select(
        lines.c.account_id, func.count(), total(lines.c.tokens), total(lines.c.nano_usd)
    )
    refunded = select(lines.c.account_id, total(adjustments.c.nano_usd)).join_from(
        adjustments, lines
    )
    used = {id: rest for id, *rest in await _by_account(connection, charged, lines, month)}
    given = {
        id: -amount for id, amount in await _by_account(connection, refunded, adjustments, month)
    }
    given[WASTE_ACCOUNT] = -sum(given.values())
    accounts = []
    for id in sorted({*used, *given}):
        _, tokens, nano_usd = used.get(id, (0, 0, 0))
        accounts.append(AccountTotal(id, tokens, nano_usd, given.get(id, 0)))
    return MonthTotals(
        month=month,
        requests=(await connection.execute(requests)).scalar_one(),
        lines=sum(count for count, _, _ in used.values()),
        revenue_nano_usd=sum(account.nano_usd for account in accounts),
        accounts=tuple(accounts),
    )


async def _by_account(
    connection: AsyncConnection, query: Select[Any], of: FromClause, month: str
) -> list[Any]:
    grouped = query.where(of.c.month == month).group_by(lines.c.account_id)
    return list(await connection.execute(grouped))


def _require_month(month: str) -> None:
    if not _MONTH.fullmatch(month):
        raise InvalidRequest(f"month: must be like 2026-11, not {month!r:.20}", param="month")
