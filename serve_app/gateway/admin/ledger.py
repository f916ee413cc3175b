"""The ledger looked at: one request in full, the reconciliation, alerts and the audit log."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy import RowMapping

from serve_app.accounting import reconcile as reconciling
from serve_app.accounting.alert_records import AlertRecord, alert_records
from serve_app.accounting.audit import MAX_ENTRIES, entries
from serve_app.accounting.calendar import Clock, month_of
from serve_app.accounting.money import format_usd
from serve_app.accounting.period import checked_month
from serve_app.accounting.principal import Principal
from serve_app.accounting.request_record import RequestRecord, request_record
from serve_app.accounting.roles import PERMISSIONS, Permission
from serve_app.errors import NotFound
from serve_app.gateway.admin.access import BAD_QUERY, AdminRoute, MalformedRequest, caller
from serve_app.gateway.admin.fields import (
    AdjustmentAnswer,
    Answer,
    Body,
    Month,
    RowId,
    Text,
    Usd,
    maybe_moment,
    moment,
)
from serve_app.gateway.admin.office import Office
from serve_app.gateway.refusals import refusals

Reader = Annotated[Principal, caller(Permission.TEAM_USAGE)]
Finance = Annotated[Principal, caller(Permission.ALL_USAGE)]


class HoldAnswer(Answer):
    request_id: str
    state: str
    outcome: str | None
    model: str
    price_version: int
    month: str
    day: str
    amount_usd: Usd
    text_tokens: int
    image_tokens: int
    max_output_tokens: int
    pictures: int
    created_at: datetime
    disconnected_at: datetime | None
    closed_at: datetime | None
    audited_at: datetime | None


class LineAnswer(Answer):
    """``waste`` lines nobody pays."""

    id: int
    attempt: int
    choice: int
    kind: str
    waste: bool
    tokens: int
    usd: Usd
    month: str
    posted_at: datetime


class TallyAnswer(Answer):
    """What the engine counted, of one choice of one attempt."""

    group: str
    attempt: int
    choice: int
    text: int
    image: int
    cached_text: int
    cached_image: int
    output: int
    rejected_draft: int


class RequestAnswer(Answer):
    hold: HoldAnswer
    lines: list[LineAnswer]
    adjustments: list[AdjustmentAnswer]
    tallies: list[TallyAnswer]


class DifferenceAnswer(Answer):
    what: str
    where: str
    month: str
    expected: int
    found: int
    unit: str


class InFlightAnswer(Answer):
    month: str
    running: int
    held_usd: Usd
    unaudited: int


class ReconciliationAnswer(Answer):
    """``engines`` were idle and are compared; ``busy_engines`` were not."""

    agrees: bool
    lines: int
    differences: list[DifferenceAnswer]
    in_flight: list[InFlightAnswer]
    engines: list[str]
    busy_engines: list[str]


class AuditQuery(Body):
    """The newest first; the next page begins ``before_id`` the last one's id."""

    before_id: RowId | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_ENTRIES)] = 100


class AuditAnswer(Answer):
    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: dict[str, Any]


class AuditLog(Answer):
    data: list[AuditAnswer]


class AlertAnswer(Answer):
    """A soft threshold of a budget; amounts are those when it was crossed."""

    scope: str
    name: str
    month: str
    percent: int
    posted_usd: Usd
    budget_usd: Usd
    created_at: datetime
    attempts: int
    delivered_at: datetime | None
    given_up_at: datetime | None


class Alerts(Answer):
    data: list[AlertAnswer]


def ledger_routes(
    office: Office, clock: Clock, engines: reconciling.EngineTokens | None
) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)

    @router.get("/requests/{request_id}", responses=refusals(MalformedRequest, NotFound))
    async def request(request_id: Text, reader: Reader) -> RequestAnswer:
        """Everything the accounts know of it; a team lead finds its own team's."""
        everyone = Permission.ALL_USAGE in PERMISSIONS[reader.role]
        team_id = None if everyone else reader.payer.team_id
        async with office.database.read() as connection:
            return _request(await request_record(connection, request_id, team_id=team_id))

    @router.get("/reconcile", responses=refusals(*BAD_QUERY))
    async def reconcile(_reader: Finance, month: Month | None = None) -> ReconciliationAnswer:
        """Ledger, balances, rollup, holds, journal and engine counters, compared."""
        chosen = None if month is None else checked_month(month)
        async with office.database.read() as connection:
            found = await reconciling.reconcile(connection, month=chosen, engines=engines)
        return _reconciliation(found)

    @router.get("/alerts", responses=refusals(*BAD_QUERY))
    async def alerts(_reader: Finance, month: Month | None = None) -> Alerts:
        """Budget thresholds crossed in a month, else in this one."""
        chosen = month_of(clock()) if month is None else checked_month(month)
        async with office.database.read() as connection:
            return Alerts(data=[_alert(each) for each in await alert_records(connection, chosen)])

    @router.get("/audit", responses=refusals(MalformedRequest))
    async def audit(_reader: Finance, asked: Annotated[AuditQuery, Query()]) -> AuditLog:
        """Who changed what and when."""
        found = await entries(office.database, before_id=asked.before_id, limit=asked.limit)
        return AuditLog(
            data=[
                AuditAnswer(
                    id=entry.id,
                    at=moment(entry.at_us),
                    actor=entry.actor,
                    action=entry.action,
                    subject=entry.subject,
                    detail=dict(entry.detail),
                )
                for entry in found
            ]
        )

    return router


def _request(record: RequestRecord) -> RequestAnswer:
    hold = record.hold
    return RequestAnswer(
        hold=HoldAnswer(
            **_picked(hold, HoldAnswer),
            amount_usd=format_usd(hold["amount_nano_usd"]),
            created_at=moment(hold["created_us"]),
            disconnected_at=maybe_moment(hold["disconnected_us"]),
            closed_at=maybe_moment(hold["closed_us"]),
            audited_at=maybe_moment(hold["audited_us"]),
        ),
        lines=[
            LineAnswer(
                **_picked(line, LineAnswer),
                waste=line["account_id"] != hold["team_id"],
                usd=format_usd(line["nano_usd"]),
                posted_at=moment(line["posted_us"]),
            )
            for line in record.lines
        ],
        adjustments=[
            AdjustmentAnswer(
                **_picked(row, AdjustmentAnswer),
                usd=format_usd(row["nano_usd"]),
                posted_at=moment(row["posted_us"]),
            )
            for row in record.adjustments
        ],
        tallies=[TallyAnswer(**_picked(row, TallyAnswer)) for row in record.tallies],
    )


def _picked(row: RowMapping, answer: type[Answer]) -> dict[str, Any]:
    """Those columns that the answer has under the same name."""
    return {name: row[name] for name in answer.model_fields if name in row}


def _alert(alert: AlertRecord) -> AlertAnswer:
    return AlertAnswer(
        scope=alert.scope,
        name=alert.name,
        month=alert.month,
        percent=alert.percent,
        posted_usd=format_usd(alert.posted_nano_usd),
        budget_usd=format_usd(alert.budget_nano_usd),
        created_at=moment(alert.created_us),
        attempts=alert.attempts,
        delivered_at=maybe_moment(alert.delivered_us),
        given_up_at=maybe_moment(alert.given_up_us),
    )


def _reconciliation(found: reconciling.Reconciliation) -> ReconciliationAnswer:
    return ReconciliationAnswer(
        agrees=found.agrees,
        lines=found.lines,
        differences=[DifferenceAnswer(**asdict(each)) for each in found.differences],
        in_flight=[
            InFlightAnswer(
                month=each.month,
                running=each.running,
                held_usd=format_usd(each.held_nano_usd),
                unaudited=each.unaudited,
            )
            for each in found.in_flight
        ],
        engines=list(found.engines),
        busy_engines=list(found.busy_engines),
    )
