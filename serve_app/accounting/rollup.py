"""The ledger's totals, cheap enough to be read at every scrape of /metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

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
    """

    used: tuple[Used, ...]
    requests: tuple[Requests, ...]
    teams: tuple[tuple[str, str, Standing], ...]
    open_holds: int
    unaudited_holds: int
    alerts_given_up: int


async def totals(connection: AsyncConnection, month: str) -> Totals:
    """``connection`` is one snapshot."""
    standing = await standings(connection, month, [Scope.TEAM])
    running, unaudited = (await connection.execute(_unfinished())).one()
    given_up = select(func.count()).where(alerts.c.given_up_us.is_not(None))
    return Totals(
        used=tuple(Used(*row) for row in await _rows(connection, _used())),
        requests=tuple(Requests(*row) for row in await _rows(connection, _requests(month))),
        teams=tuple(
            (organisation, team, standing[account_id])
            for account_id, organisation, team in await _rows(connection, _team_names())
        ),
        open_holds=running,
        unaudited_holds=unaudited,
        alerts_given_up=(await connection.execute(given_up)).scalar_one(),
    )


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


def _unfinished() -> Select[*tuple[Any, ...]]:
    """Of those not audited, by the partial index, how many run and how many have ended."""
    running = case((holds.c.state == HoldState.HELD, 1), else_=0)
    return select(total(running), total(1 - running)).where(holds.c.audited_us.is_(None))
