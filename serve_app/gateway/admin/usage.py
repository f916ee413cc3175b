"""Reports and exports for admins, finance and team leads; what the machines cost beside."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints

from serve_app.accounting import economics as economy
from serve_app.accounting import reports
from serve_app.accounting.calendar import MICROSECONDS, Clock
from serve_app.accounting.exports import FileFormat, write
from serve_app.accounting.focus import focus_table
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import PERMISSIONS, Permission
from serve_app.accounting.table import Cell, Table
from serve_app.config import Accounting
from serve_app.errors import Conflict, Forbidden, NotFound
from serve_app.gateway.admin.access import BAD_QUERY, AdminRoute, MalformedRequest, caller
from serve_app.gateway.admin.fields import Answer, Body, Text, moment
from serve_app.gateway.admin.office import Office
from serve_app.gateway.admin.usage_answer import (
    PeriodQuery,
    UsageAnswer,
    UsageQuery,
    usage_answer,
)
from serve_app.gateway.refusals import refusals

_HOUR_US = 3_600 * MICROSECONDS
_JSON = "json"
Format = Literal["json", "csv", "parquet"]
_FILES: dict[str, Any] = {
    each.media_type.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
    for each in FileFormat
}
Reader = Annotated[Principal, caller(Permission.TEAM_USAGE)]
Finance = Annotated[Principal, caller(Permission.ALL_USAGE)]


class Chosen(PeriodQuery):
    """Of one team (`team`, or `organisation/team` where ambiguous), key (public id) or model."""

    team: Text | None = None
    key: Text | None = None
    model: Text | None = None
    format: Format = "json"

    async def query(
        self, office: Office, reader: Principal, now_us: int, by: tuple[reports.Dimension, ...] = ()
    ) -> reports.Query:
        """
        Raises:
            NotFound, InvalidRequest: an unknown team or key, no period.
            Forbidden: a team lead asks for another team.
        """
        team_id = None if self.team is None else (await office.directory.team(self.team)).id
        if Permission.ALL_USAGE not in PERMISSIONS[reader.role]:
            if team_id not in (None, reader.payer.team_id):
                raise Forbidden("a team lead sees the usage of its own team only", param="team")
            team_id = reader.payer.team_id
        return reports.Query(
            self.period(now_us),
            by,
            team_id=team_id,
            key_id=None if self.key is None else (await office.directory.key(self.key)).id,
            model=self.model,
        )


class ReportQuery(Chosen, UsageQuery):
    """``source`` lines: summed anew from the ledger's lines, which say the same more slowly."""

    source: Literal["rollup", "lines"] = "rollup"


class FocusAnswer(Answer):
    """Rows under the column names of FOCUS 1.2; costs are decimal strings."""

    data: list[dict[str, Cell]]


class EconomicsQuery(Body):
    """The last ``hours``. ``usd_per_hour`` of all machines; else `accounting.usd_per_hour`."""

    hours: Annotated[int, Field(ge=1, le=24 * 366)] = 24
    usd_per_hour: Annotated[
        str | None, StringConstraints(pattern=r"^[0-9]{1,9}(\.[0-9]{1,9})?$")
    ] = None


class EconomicsAnswer(Answer):
    """Dollars are decimal strings, rounded to nano-dollars. Null where nothing was used."""

    start: datetime
    end: datetime
    usd_per_hour: str
    tokens: int
    output_tokens: int
    wasted_tokens: int
    cost_usd: str
    revenue_usd: str
    margin_usd: str
    usd_per_million_tokens: str | None
    usd_per_million_output_tokens: str | None
    tokens_per_hour: int
    break_even_tokens_per_hour: int | None


def usage_routes(office: Office, settings: Accounting, clock: Clock) -> APIRouter:
    router = APIRouter(route_class=AdminRoute)

    @router.get(
        "/usage",
        response_model=UsageAnswer,
        response_model_exclude_unset=True,
        responses={**refusals(*BAD_QUERY, NotFound), 200: {"content": _FILES}},
    )
    async def usage(reader: Reader, asked: Annotated[ReportQuery, Query()]) -> Any:
        """Tokens, requests and dollars by anything; a team lead sees its own team."""
        by = tuple(asked.by)
        query = await asked.query(office, reader, clock(), by)
        async with office.database.read() as connection:
            found = await reports.usage(connection, query, from_lines=asked.source == "lines")
        if asked.format == _JSON:
            return usage_answer(query.period, by, found)
        return await _file(reports.usage_table(by, found), asked.format, "usage")

    @router.get(
        "/usage/focus",
        response_model=FocusAnswer,
        responses={**refusals(*BAD_QUERY, NotFound), 200: {"content": _FILES}},
    )
    async def focus(reader: Reader, asked: Annotated[Chosen, Query()]) -> Any:
        """Charges and refunds under the column names of FOCUS, for tools that read bills."""
        query = await asked.query(office, reader, clock())
        async with office.database.read() as connection:
            table = await focus_table(connection, query)
        if asked.format == _JSON:
            return FocusAnswer(data=table.records())
        return await _file(table, asked.format, "focus")

    @router.get("/economics", responses=refusals(MalformedRequest, Conflict))
    async def economics(
        _reader: Finance, asked: Annotated[EconomicsQuery, Query()]
    ) -> EconomicsAnswer:
        """Dollars per million tokens actually achieved, and the load at which it breaks even."""
        price = settings.usd_per_hour
        if asked.usd_per_hour is not None:
            price = Decimal(asked.usd_per_hour)
        if price is None:
            raise Conflict("set accounting.usd_per_hour, or ask with usd_per_hour")
        end_us = clock()
        async with office.database.read() as connection:
            found = await economy.economics(
                connection,
                start_us=end_us - asked.hours * _HOUR_US,
                end_us=end_us,
                usd_per_hour=price,
            )
        return _economics_answer(found)

    return router


async def _file(table: Table, file_format: str, name: str) -> Response:
    chosen = FileFormat(file_format)
    # Off the loop: streams go on while a long table is written.
    content = await asyncio.to_thread(write, table, chosen)
    return Response(
        content,
        media_type=chosen.media_type,
        headers={"content-disposition": f'attachment; filename="{name}.{chosen}"'},
    )


def _economics_answer(found: economy.Economics) -> EconomicsAnswer:
    values = asdict(found)
    start, end = moment(values.pop("start_us")), moment(values.pop("end_us"))
    plain = {
        name: f"{value:f}" if isinstance(value, Decimal) else value
        for name, value in values.items()
    }
    return EconomicsAnswer(start=start, end=end, **plain)
