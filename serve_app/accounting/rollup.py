"""The ledger's totals, cheap enough to be read at every scrape of /metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.hold import HoldState, Scope
from serve_app.accounting.reports import ORGANISATION, TEAM, with_accounts
from serve_app.accounting.schema import WASTE_ACCOUNT, accounts, alerts, holds, usage_days
from serve_app.accounting.standing import Standing, standings
from serve_app.accounting.sums import total


@dataclass(frozen=True, slots=True)
class Used:
    """Since the beginning, of one team, model and kind; wasted or charged."""

    organisation: str
    team: str
    model: str
    kind: str
    wasted: bool
    tokens: int
    nano_usd: int


@dataclass(frozen=True, slots=True)
class Requests:
    """Of one team and model in a month; ``outcome`` is ``running`` for those that have none."""

    organisation: str
    team: str
    model: str
    outcome: str
    count: int


@dataclass(frozen=True, slots=True)
class Totals:
    """``teams``: name of organisation and team, and how it stands in the month.

    ``unaudited`` requests have ended and were not compared with the journal yet; ``alerts`` are
    budget alerts that were given up undelivered.

    Attributes:
        expired_holds: of gateways that are gone, and not ended yet.
        oldest_open_s, oldest_unaudited_s: since it began, since it ended; 0 for none.
        alerts_due: neither delivered nor given up.
    """

    used: tuple[Used, ...]
    requests: tuple[Requests, ...]
    teams: tuple[tuple[str, str, Standing], ...]
    open_holds: int
    unaudited_holds: int
    alerts_given_up: int
    expired_holds: int
    oldest_open_s: float
    oldest_unaudited_s: float
    alerts_due: int


async def totals(connection: AsyncConnection, month: str, now_us: int) -> Totals:
    """``connection`` is one snapshot."""
    standing = await standings(connection, month, [Scope.TEAM])
    unfinished = (await connection.execute(_unfinished(now_us))).one()
    given_up = alerts.c.given_up_us.is_not(None)
    due = alerts.c.given_up_us.is_(None) & alerts.c.delivered_us.is_(None)
    return Totals(
        used=tuple(Used(*row) for row in await _rows(connection, _used())),
        requests=tuple(Requests(*row) for row in await _rows(connection, _requests(month))),
        teams=tuple(
            (organisation, team, standing[account_id])
            for account_id, organisation, team in await _rows(connection, _team_names())
        ),
        open_holds=unfinished.running,
        unaudited_holds=unfinished.unaudited,
        alerts_given_up=await _count(connection, given_up),
        expired_holds=unfinished.expired,
        oldest_open_s=_age_s(unfinished.oldest_open_us, now_us),
        oldest_unaudited_s=_age_s(unfinished.oldest_unaudited_us, now_us),
        alerts_due=await _count(connection, due),
    )


def _age_s(since_us: int | None, now_us: int) -> float:
    """0 for none, and where another machine's clock is ahead of ours."""
    return 0.0 if since_us is None else max(0.0, (now_us - since_us) / MICROSECONDS)


async def _count(connection: AsyncConnection, which: ColumnElement[bool]) -> int:
    count: int = (await connection.execute(select(func.count()).where(which))).scalar_one()
    return count


async def _rows(connection: AsyncConnection, query: Select[*tuple[Any, ...]]) -> list[Any]:
    return [tuple(row) for row in await connection.execute(query)]


def _used() -> Select[*tuple[Any, ...]]:
    wasted = (usage_days.c.account_id == WASTE_ACCOUNT).label("wasted")
    sums = (total(usage_days.c.tokens), total(usage_days.c.nano_usd))
    by = (ORGANISATION.c.name, TEAM.c.name, usage_days.c.model, usage_days.c.kind)
    return (
        select(*by, wasted, *sums)
        .select_from(with_accounts(usage_days, usage_days.c.key_id))
        .group_by(*by, "wasted")
        .order_by(*by, "wasted")
    )


def _requests(month: str) -> Select[*tuple[Any, ...]]:
    by = (ORGANISATION.c.name, TEAM.c.name, holds.c.model)
    outcome = func.coalesce(holds.c.outcome, "running").label("how")
    return (
        select(*by, outcome, func.count())
        .select_from(with_accounts(holds, holds.c.key_id))
        .where(holds.c.month == month)
        .group_by(*by, "how")
        .order_by(*by, "how")
    )


def _team_names() -> Select[*tuple[Any, ...]]:
    team, organisation = accounts.alias(), accounts.alias()
    return (
        select(team.c.id, organisation.c.name, team.c.name)
        .join(organisation, organisation.c.id == team.c.parent_id)
        .where(team.c.scope == Scope.TEAM)
        .order_by(organisation.c.name, team.c.name)
    )


def _unfinished(now_us: int) -> Select[*tuple[Any, ...]]:
    """Of those not audited, by the partial index: how many run and how many have ended."""
    held = holds.c.state == HoldState.HELD
    running = case((held, 1), else_=0)
    expired = case((held & (holds.c.lease_until_us <= now_us), 1), else_=0)
    return select(
        total(running).label("running"),
        total(1 - running).label("unaudited"),
        total(expired).label("expired"),
        func.min(case((held, holds.c.created_us))).label("oldest_open_us"),
        func.min(holds.c.closed_us).label("oldest_unaudited_us"),
    ).where(holds.c.audited_us.is_(None))
