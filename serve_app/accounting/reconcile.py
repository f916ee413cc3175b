"""Proof that the accounts agree with themselves and with the engine, to the token and nano-dollar.

    lines = tokens x price of their version; of the hold's day, prices and payer; within its amount
    balances = lines and adjustments          usage_days = lines
    held = open holds                         concurrent = open holds
    lines = the engine's journal              totals of closed months = lines and adjustments
    the journal = what the engines count themselves

Requests still running, or ended but not
yet compared with the journal, are left out of the comparison with it, each by itself, and counted
as in flight.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from sqlalchemy import ColumnElement, FromClause, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.checks import RUNNING, Query, checks
from serve_app.accounting.hold import Scope
from serve_app.accounting.months import MonthTotals
from serve_app.accounting.schema import (
    REVENUE_ACCOUNT,
    accounts,
    balances,
    holds,
    lines,
    months,
    tallies,
)
from serve_app.accounting.sums import total
from serve_app.accounting.tokens import Kind

# Of one check; more would say no more.
MAX_DIFFERENCES = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """``what`` was checked ``where``; expected and found in ``unit``s."""

    what: str
    where: str
    month: str
    expected: int
    found: int
    unit: str


@dataclass(frozen=True, slots=True)
class InFlight:
    """Of one month: requests that run, and those that ended but await comparison."""

    month: str
    running: int
    held_nano_usd: int
    unaudited: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was found; ``lines`` is how many were looked at.

    Attributes:
        engines: groups whose own counters were found equal to the journal.
        busy_engines: groups whose counters moved, or had requests in flight: not to be compared.
    """

    differences: tuple[Difference, ...]
    in_flight: tuple[InFlight, ...]
    lines: int
    engines: tuple[str, ...] = ()
    busy_engines: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.differences


# Group -> tokens of prompts and answers that it computed since it started, or found in its prefix
# cache, as it counts itself.
EngineTokens = Callable[[], Awaitable[Mapping[str, int]]]


async def reconcile(
    connection: AsyncConnection, *, month: str | None = None, engines: EngineTokens | None = None
) -> Reconciliation:
    """Check everything, or one budget month; ``connection`` must be one snapshot throughout.

    Args:
        engines: asked before the snapshot is taken and after.
    """
    before = await engines() if engines else {}
    unequal = [
        (check.what, check.unit, row)
        for check in checks()
        for row in await _rows(connection, check.query, month)
    ]
    in_flight = await _in_flight(connection)
    journaled = await _journaled(connection) if engines else {}
    after = await engines() if engines else {}
    counted = select(func.count()).select_from(lines).where(*_of_month(lines, month))
    compared = (await connection.execute(counted)).scalar_one()
    changed = await _unlike_when_closed(connection, month)
    unequal += [("closed month", "nano-USD", row) for row in changed]
    names = await _names(connection) if unequal else {}
    idle = {group for group in after if before.get(group) == after[group] and not in_flight}
    wrong = tuple(_unlike_the_engines(journaled, after, idle))
    return Reconciliation(
        differences=tuple(_difference(*each, names) for each in unequal) + wrong,
        in_flight=tuple(each for each in in_flight if month in (None, each.month)),
        lines=compared,
        engines=tuple(sorted(idle - {difference.where for difference in wrong})),
        busy_engines=tuple(sorted(set(after) - idle)),
    )


async def _rows(
    connection: AsyncConnection, query: Query, month: str | None
) -> list[Mapping[str, Any]]:
    found = query.subquery()
    wanted = select(found).where(*_of_month(found, month)).limit(MAX_DIFFERENCES)
    return [row._asdict() for row in await connection.execute(wanted)]


def _difference(
    what: str, unit: str, row: Mapping[str, Any], names: Mapping[int, str]
) -> Difference:
    where = ", ".join(
        names[value] if name == "account" else f"{name} {names[value] if name == 'key' else value}"
        for name, value in row.items()
        if name not in ("month", "expected", "found")
    )
    return Difference(what, where, row["month"], row["expected"], row["found"], unit)


def _unlike_the_engines(
    journaled: Mapping[str, int], counted: Mapping[str, int], idle: Set[str]
) -> Iterator[Difference]:
    """More in the journal than was computed is wrong at any time, less once nothing runs."""
    for group, tokens in counted.items():
        found = journaled.get(group, 0)
        if found > tokens or (found < tokens and group in idle):
            yield Difference("engine", group, "", tokens, found, "tokens")


async def _unlike_when_closed(
    connection: AsyncConnection, month: str | None
) -> list[Mapping[str, Any]]:
    """What was posted to teams, waste and revenue is still what it was when a month was closed."""
    found: list[Mapping[str, Any]] = []
    closed = select(months.c.month, months.c.totals).where(*_of_month(months, month))
    for name, kept in (await connection.execute(closed.order_by(months.c.month))).all():
        totals = MonthTotals.of_json(kept)
        expected = {
            each.account_id: each.nano_usd + each.adjusted_nano_usd for each in totals.accounts
        }
        expected[REVENUE_ACCOUNT] = totals.revenue_nano_usd
        query = (
            select(balances.c.account_id, balances.c.posted_nano_usd)
            .join(accounts, accounts.c.id == balances.c.account_id)
            .where(balances.c.month == name, accounts.c.scope.in_(_CLOSED_SCOPES))
        )
        posted = {row.account_id: row.posted_nano_usd for row in await connection.execute(query)}
        found += [
            {"account": account, "month": name, "expected": was, "found": now}
            for account in sorted({*expected, *posted})
            if (was := expected.get(account, 0)) != (now := posted.get(account, 0))
        ]
    return found


_CLOSED_SCOPES = (Scope.TEAM, Scope.WASTE, Scope.REVENUE)


async def _journaled(connection: AsyncConnection) -> dict[str, int]:
    tokens = reduce(add, (tallies.c[kind.value] for kind in Kind))
    query = select(tallies.c.group, total(tokens)).group_by(tallies.c.group)
    return dict((await connection.execute(query)).all())


async def _in_flight(connection: AsyncConnection) -> tuple[InFlight, ...]:
    running = case((RUNNING, 1), else_=0)
    query = (
        select(
            holds.c.month,
            total(running).label("running"),
            total(holds.c.amount_nano_usd * running).label("held_nano_usd"),
            total(1 - running).label("unaudited"),
        )
        .where(holds.c.audited_us.is_(None))
        .group_by(holds.c.month)
        .order_by(holds.c.month)
    )
    return tuple(InFlight(*row) for row in (await connection.execute(query)))


async def _names(connection: AsyncConnection) -> dict[int, str]:
    rows = await connection.execute(select(accounts.c.id, accounts.c.scope, accounts.c.name))
    return {row.id: f"{row.scope} {row.name} (account {row.id})" for row in rows}


def _of_month(source: FromClause, month: str | None) -> list[ColumnElement[bool]]:
    """What is of no month, such as how many requests run, is checked with any."""
    return [] if month is None else [source.c.month.in_((month, ""))]
