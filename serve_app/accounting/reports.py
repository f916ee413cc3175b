"""Usage by day, team, key, model, kind …: what teams were charged, refunded, and what was wasted.

Reads ``usage_days``, which settlement keeps up to date; ``lines`` themselves say the same
(reconcile.py proves it) and are read where only they know, or on demand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    case,
    func,
    literal_column,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.period import Period
from serve_app.accounting.schema import (
    WASTE_ACCOUNT,
    accounts,
    adjustments,
    holds,
    keys,
    lines,
    usage_days,
)
from serve_app.accounting.sums import total
from serve_app.accounting.table import Cell, Column, Table, Unit
from serve_app.accounting.tokens import CHARGED

ORGANISATION = accounts.alias("organisation")
TEAM = accounts.alias("team")
KEY = accounts.alias("key")


class Dimension(StrEnum):
    """What a report can be grouped by."""

    DAY = "day"
    MONTH = "month"
    ORGANISATION = "organisation"
    TEAM = "team"
    KEY = "key"
    MODEL = "model"
    KIND = "kind"
    REQUEST = "request"  # "picture" or "text": whether the request had pictures


@dataclass(frozen=True, slots=True)
class Query:
    """Filters by account id and model name; None takes all. ``by`` in the order of the columns."""

    period: Period
    by: tuple[Dimension, ...] = ()
    organisation_id: int | None = None
    team_id: int | None = None
    key_id: int | None = None
    model: str | None = None


@dataclass(slots=True)
class Usage:
    """Of one group. Amounts in nano-dollars; requests are None where they cannot be told apart.

    ``charged`` is before refunds. Wasted tokens are those nobody pays: computed again, never
    delivered, or guessed ahead and rejected.
    """

    requests: int | None = 0
    picture_requests: int | None = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHARGED, 0))
    charged_nano_usd: int = 0
    refunded_nano_usd: int = 0
    wasted_tokens: int = 0
    wasted_nano_usd: int = 0


async def usage(
    connection: AsyncConnection, query: Query, *, from_lines: bool = False
) -> dict[tuple[str, ...], Usage]:
    """By the labels of each group (see ``label_names``), sorted by them."""
    by_kind = Dimension.KIND in query.by
    labelled = len(label_names(query.by))
    found: dict[tuple[str, ...], Usage] = {}

    def group(row: Sequence[Any]) -> Usage:
        empty = Usage(None, None) if by_kind else Usage()
        return found.setdefault(tuple(row[:labelled]), empty)

    for row in await connection.execute(_charges(query, from_lines)):
        usage = group(row)
        if row.kind in usage.tokens:
            usage.tokens[row.kind] += row.charged_tokens
        usage.charged_nano_usd += row.charged
        usage.wasted_tokens += row.wasted_tokens
        usage.wasted_nano_usd += row.wasted
    for row in await connection.execute(_refunds(query)):
        group(row).refunded_nano_usd += row.refunded
    if not by_kind:
        for row in await connection.execute(_requests(query)):
            usage = group(row)
            usage.requests, usage.picture_requests = row.requests, row.picture_requests
    return dict(sorted(found.items()))


def label_names(by: Sequence[Dimension]) -> tuple[str, ...]:
    """A team is named with its organisation and a key with its name: neither is unique alone."""
    return tuple(dict.fromkeys(name for dimension in by for name in _LABELS[dimension]))


def usage_table(by: Sequence[Dimension], found: Mapping[tuple[str, ...], Usage]) -> Table:
    """One row for each group."""
    by_kind = Dimension.KIND in by
    counts = ("tokens",) if by_kind else ("requests", "picture_requests", *_TOKEN_COLUMNS.values())
    columns = (
        *map(Column, label_names(by)),
        *(Column(name, Unit.COUNT) for name in counts),
        Column("charged_usd", Unit.NANO_USD),
        Column("refunded_usd", Unit.NANO_USD),
        Column("net_usd", Unit.NANO_USD),
        Column("wasted_tokens", Unit.COUNT),
        Column("wasted_usd", Unit.NANO_USD),
    )
    return Table(columns, tuple((*labels, *_cells(row, by_kind)) for labels, row in found.items()))


def sum_of(found: Mapping[tuple[str, ...], Usage]) -> Usage:
    rows = found.values()
    counted = all(row.requests is not None for row in rows)
    return Usage(
        requests=sum(row.requests or 0 for row in rows) if counted else None,
        picture_requests=sum(row.picture_requests or 0 for row in rows) if counted else None,
        tokens={kind: sum(row.tokens[kind] for row in rows) for kind in CHARGED},
        charged_nano_usd=sum(row.charged_nano_usd for row in rows),
        refunded_nano_usd=sum(row.refunded_nano_usd for row in rows),
        wasted_tokens=sum(row.wasted_tokens for row in rows),
        wasted_nano_usd=sum(row.wasted_nano_usd for row in rows),
    )


_TOKEN_COLUMNS = {kind: f"{kind}_tokens" for kind in CHARGED}
_LABELS: Mapping[Dimension, tuple[str, ...]] = {
    Dimension.DAY: ("day",),
    Dimension.MONTH: ("month",),
    Dimension.ORGANISATION: ("organisation",),
    Dimension.TEAM: ("organisation", "team"),
    Dimension.KEY: ("key", "key_name"),
    Dimension.MODEL: ("model",),
    Dimension.KIND: ("kind",),
    Dimension.REQUEST: ("request",),
}


def _cells(usage: Usage, by_kind: bool) -> tuple[Cell, ...]:
    tokens = usage.tokens.values()
    counts = (sum(tokens),) if by_kind else (usage.requests, usage.picture_requests, *tokens)
    return (
        *counts,
        usage.charged_nano_usd,
        usage.refunded_nano_usd,
        usage.charged_nano_usd - usage.refunded_nano_usd,
        usage.wasted_tokens,
        usage.wasted_nano_usd,
    )


def _charges(query: Query, from_lines: bool) -> Select[*tuple[Any, ...]]:
    """Summed by labels and kind."""
    exact = from_lines or Dimension.REQUEST in query.by
    source = lines if exact else usage_days
    joined = source.join(holds, holds.c.request_id == lines.c.request_id) if exact else source
    wasted = source.c.account_id == WASTE_ACCOUNT
    labels = _labels(query.by, source, source.c.kind)
    return (
        select(
            *labels,
            source.c.kind,
            total(case((wasted, 0), else_=source.c.tokens)).label("charged_tokens"),
            total(case((wasted, 0), else_=source.c.nano_usd)).label("charged"),
            total(case((wasted, source.c.tokens), else_=0)).label("wasted_tokens"),
            total(case((wasted, source.c.nano_usd), else_=0)).label("wasted"),
        )
        .select_from(with_accounts(joined, source.c.key_id))
        .where(*filters(query, source.c.day, source.c.model))
        .group_by(*labels, source.c.kind)
    )


def _refunds(query: Query) -> Select[*tuple[Any, ...]]:
    """On the day they were given, not the line's."""
    joined = adjustments.join(lines).join(holds)
    labels = _labels(query.by, lines, lines.c.kind, day=adjustments.c.day)
    return (
        select(*labels, total(adjustments.c.nano_usd).label("refunded"))
        .select_from(with_accounts(joined, lines.c.key_id))
        .where(*filters(query, adjustments.c.day, lines.c.model))
        .group_by(*labels)
    )


def _requests(query: Query) -> Select[*tuple[Any, ...]]:
    """Every one that was admitted, however it ended."""
    labels = _labels(query.by, holds)
    return (
        select(
            *labels,
            func.count().label("requests"),
            total(case((holds.c.pictures > 0, 1), else_=0)).label("picture_requests"),
        )
        .select_from(with_accounts(holds, holds.c.key_id))
        .where(*filters(query, holds.c.day, holds.c.model))
        .group_by(*labels)
    )


def _labels(
    by: Sequence[Dimension],
    source: FromClause,
    kind: ColumnElement[str] | None = None,
    day: ColumnElement[str] | None = None,
) -> list[ColumnElement[str]]:
    day = source.c.day if day is None else day
    # Literals, not parameters: PostgreSQL must see that SELECT and GROUP BY say the same.
    known: dict[str, ColumnElement[str]] = {
        "day": day,
        "month": func.substr(day, literal_column("1"), literal_column("7")),
        "organisation": ORGANISATION.c.name,
        "team": TEAM.c.name,
        "key": keys.c.public_id,
        "key_name": KEY.c.name,
        "model": source.c.model,
        "request": case(
            (holds.c.pictures > literal_column("0"), literal_column("'picture'")),
            else_=literal_column("'text'"),
        ),
    }
    if kind is not None:
        known["kind"] = kind
    return [known[name].label(f"{name}_label") for name in label_names(by)]


def with_accounts(source: FromClause, key_id: ColumnElement[int]) -> FromClause:
    """Joined with ``KEY``, ``TEAM``, ``ORGANISATION`` and ``keys``."""
    return (
        source.join(KEY, KEY.c.id == key_id)
        .join(keys, keys.c.account_id == KEY.c.id)
        .join(TEAM, TEAM.c.id == KEY.c.parent_id)
        .join(ORGANISATION, ORGANISATION.c.id == TEAM.c.parent_id)
    )


def filters(
    query: Query, day: ColumnElement[str], model: ColumnElement[str]
) -> list[ColumnElement[bool]]:
    """On what ``with_accounts`` joined."""
    wanted = {
        ORGANISATION.c.id: query.organisation_id,
        TEAM.c.id: query.team_id,
        KEY.c.id: query.key_id,
        model: query.model,
    }
    chosen = [column == value for column, value in wanted.items() if value is not None]
    return [day.between(query.period.first, query.period.last), *chosen]
