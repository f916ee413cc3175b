"""Refunds of single lines, and the closing of months."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import StringConstraints

from serve_app.accounting.adjusting import adjust
from serve_app.accounting.calendar import Clock
from serve_app.accounting.money import format_usd, parse_usd
from serve_app.accounting.months import MonthStatus, close_month, month_status
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Permission
from serve_app.errors import Conflict, NotFound
from serve_app.gateway.admin.access import BAD_BODY, BAD_QUERY, AdminRoute, caller
from serve_app.gateway.admin.fields import (
    AdjustmentAnswer,
    Answer,
    Body,
    Month,
    RowId,
    Usd,
    UsdIn,
    maybe_moment,
    moment,
)
from serve_app.gateway.admin.office import Office
from serve_app.gateway.refusals import refusals

Admin = Annotated[Principal, caller(Permission.ADMINISTER)]


class Refund(Body):
    """Of a line (its id is in /admin/requests); all of it, or what is left, without ``usd``."""

    line_id: RowId
    usd: UsdIn | None = None
    reason: Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00]*$")]


class AccountTotalAnswer(Answer):
    """``adjusted`` is below zero where refunds were given."""

    account_id: int
    tokens: int
    usd: Usd
    adjusted_usd: Usd


class MonthAnswer(Answer):
    """``running`` and ``unaudited`` requests keep it open; once closed, it never changes."""

    month: str
    closed_at: datetime | None
    closed_by: str | None
    running: int
    unaudited: int
    requests: int
    lines: int
    revenue_usd: Usd
    accounts: list[AccountTotalAnswer]


def correction_routes(office: Office, clock: Clock) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)
    database = office.database

    @router.post("/adjustments", status_code=201, responses=refusals(*BAD_BODY, NotFound, Conflict))
    async def refund(body: Refund, admin: Admin) -> AdjustmentAnswer:
        """Give back what a line charged; it is posted to the current month, and never undone."""
        made = await adjust(
            database,
            body.line_id,
            None if body.usd is None else parse_usd(body.usd, param="usd"),
            reason=body.reason,
            actor=admin.actor,
            clock=clock,
        )
        return AdjustmentAnswer(
            id=made.id,
            line_id=made.line_id,
            usd=format_usd(made.nano_usd),
            month=made.month,
            reason=made.reason,
            actor=made.actor,
            posted_at=moment(made.posted_us),
        )

    @router.get("/months/{month}", responses=refusals(*BAD_QUERY))
    async def month(
        month: Month, _reader: Annotated[Principal, caller(Permission.ALL_USAGE)]
    ) -> MonthAnswer:
        """How a month stands, or stood when it was closed."""
        return _answer(await month_status(database, month))

    @router.post("/months/{month}/close", responses=refusals(*BAD_QUERY, Conflict))
    async def close(month: Month, admin: Admin) -> MonthAnswer:
        """For good, once all its requests are settled and audited; again changes nothing."""
        await close_month(database, month, actor=admin.actor, clock=clock)
        return _answer(await month_status(database, month))

    return router


def _answer(status: MonthStatus) -> MonthAnswer:
    totals = status.totals
    return MonthAnswer(
        month=totals.month,
        closed_at=maybe_moment(status.closed_us),
        closed_by=status.closed_by,
        running=status.open_holds,
        unaudited=status.unaudited_holds,
        requests=totals.requests,
        lines=totals.lines,
        revenue_usd=format_usd(totals.revenue_nano_usd),
        accounts=[
            AccountTotalAnswer(
                account_id=each.account_id,
                tokens=each.tokens,
                usd=format_usd(each.nano_usd),
                adjusted_usd=format_usd(each.adjusted_nano_usd),
            )
            for each in totals.accounts
        ],
    )
