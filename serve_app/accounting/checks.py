"""What reconcile.py checks: one query each, yielding only what differs.

A query's columns are where the difference is, its month ("" for none), expected and found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    String,
    and_,
    case,
    func,
    literal_column,
    not_,
    or_,
    select,
    union_all,
)

from serve_app.accounting.hold import HoldState
from serve_app.accounting.schema import (
    WASTE_ACCOUNT,
    accounts,
    adjustments,
    balances,
    holds,
    lines,
    price_versions,
    tallies,
    usage_days,
)
from serve_app.accounting.sums import total
from serve_app.accounting.tokens import Kind

Query = Select[*tuple[Any, ...]]
RUNNING = holds.c.state == HoldState.HELD.value


@dataclass(frozen=True, slots=True)
class Check:
    """``unit`` is what expected and found are counted in."""

    what: str
    unit: str
    query: Query


def checks() -> Iterator[Check]:
    yield Check("line amount", "nano-USD", _mispriced())
    yield Check("lines unlike their hold", "lines", _unlike_their_hold())
    yield Check("charged above the hold", "nano-USD", _above_hold())
    yield Check("refunded above the line", "nano-USD", _above_line())
    yield Check("posted", "nano-USD", _unequal(_posted(), _balances(balances.c.posted_nano_usd)))
    yield Check("held", "nano-USD", _unequal(_held(), _balances(balances.c.held_nano_usd)))
    yield Check("concurrent", "requests", _unequal(_running(), _concurrent()))
    for measure in ("tokens", "nano_usd"):
        rolled = _unequal(_daily(lines, measure), _daily(usage_days, measure))
        yield Check(f"usage_days {measure}", measure.replace("nano_usd", "nano-USD"), rolled)
    yield Check("journal", "tokens", _unlike_the_journal())


def _unequal(expected: Query, found: Query) -> Query:
    """Both give the same keys and an ``amount``; what one of them lacks counts as 0."""
    left, right = expected.subquery(), found.subquery()
    keys = [column.name for column in left.c if column.name != "amount"]
    both = union_all(
        select(*(left.c[key] for key in keys), left.c.amount.label("e"), _NOTHING.label("f")),
        select(*(right.c[key] for key in keys), _NOTHING.label("e"), right.c.amount.label("f")),
    ).subquery()
    by = [both.c[key] for key in keys]
    return (
        select(*by, total(both.c.e).label("expected"), total(both.c.f).label("found"))
        .group_by(*by)
        .having(total(both.c.e) != total(both.c.f))
        .order_by(*by)
    )


_NOTHING = literal_column("0", BigInteger)


# What is posted where: a team's lines also count for its key and organisation; every line is the
# platform's revenue; a refund moves from the three to waste.


def _posted() -> Query:
    team = accounts.alias("team")
    of_team = lines.join(team, team.c.id == lines.c.account_id)
    corrected = adjustments.join(lines).join(team, team.c.id == lines.c.account_id)
    charged = lines.c.account_id != WASTE_ACCOUNT
    given_back = -adjustments.c.nano_usd
    postings = [
        _posting(of_team, lines.c.key_id, lines.c.month, lines.c.nano_usd).where(charged),
        _posting(of_team, team.c.parent_id, lines.c.month, lines.c.nano_usd).where(charged),
        _posting(lines, lines.c.account_id, lines.c.month, lines.c.nano_usd),
        _posting(lines, lines.c.counter_account_id, lines.c.month, lines.c.nano_usd),
        *(
            _posting(corrected, account, adjustments.c.month, given_back)
            for account in (lines.c.key_id, team.c.id, team.c.parent_id)
        ),
        _posting(
            adjustments,
            literal_column(str(WASTE_ACCOUNT), BigInteger),
            adjustments.c.month,
            adjustments.c.nano_usd,
        ),
    ]
    return select(union_all(*postings).subquery())


def _posting(
    source: FromClause,
    account: ColumnElement[Any],
    month: ColumnElement[str],
    amount: ColumnElement[int],
) -> Query:
    return select(
        account.label("account"), month.label("month"), amount.label("amount")
    ).select_from(source)


def _balances(amount: ColumnElement[int]) -> Query:
    return _posting(balances, balances.c.account_id, balances.c.month, amount)


def _held() -> Query:
    held = [
        _posting(holds, account, holds.c.month, holds.c.amount_nano_usd).where(RUNNING)
        for account in _PAYERS
    ]
    return select(union_all(*held).subquery())


def _running() -> Query:
    """Over all months: a request that runs over midnight stays one."""
    running = [
        select(account.label("account"), _ANY_MONTH, _ONE.label("amount")).where(RUNNING)
        for account in _PAYERS
    ]
    return select(union_all(*running).subquery())


def _concurrent() -> Query:
    return select(accounts.c.id.label("account"), _ANY_MONTH, accounts.c.concurrent.label("amount"))


_PAYERS = (holds.c.key_id, holds.c.team_id, holds.c.organisation_id)
_ONE = literal_column("1", BigInteger)
_ANY_MONTH = literal_column("''", String).label("month")


def _daily(source: FromClause, measure: str) -> Query:
    """By everything that ``usage_days`` is kept by."""
    of_day = source.c.day
    return select(
        of_day.label("day"),
        source.c.account_id.label("account"),
        source.c.key_id.label("key"),
        source.c.model.label("model"),
        source.c.kind.label("kind"),
        func.substr(of_day, 1, 7).label("month"),
        source.c[measure].label("amount"),
    )


def _unlike_the_journal() -> Query:
    """Of each choice of each attempt by kind; lines of team and waste together."""
    counted = union_all(
        *(
            _counts(tallies, kind.value, tallies.c[kind.value]).where(tallies.c[kind.value] > 0)
            for kind in Kind
        )
    ).subquery()
    return _unequal(select(counted), _counts(lines, lines.c.kind, lines.c.tokens))


def _counts(
    source: FromClause, kind: ColumnElement[str] | str, tokens: ColumnElement[int]
) -> Query:
    """Without requests in flight. A request that nobody holds for is of no month."""
    in_flight = and_(holds.c.request_id.is_not(None), holds.c.audited_us.is_(None))
    return (
        select(
            source.c.request_id.label("request"),
            source.c.attempt.label("attempt"),
            source.c.choice.label("choice"),
            (literal_column(f"'{kind}'", String) if isinstance(kind, str) else kind).label("kind"),
            func.coalesce(holds.c.month, "").label("month"),
            tokens.label("amount"),
        )
        .select_from(source.outerjoin(holds, holds.c.request_id == source.c.request_id))
        .where(not_(in_flight))
    )


def _mispriced() -> Query:
    price = case(
        *((lines.c.kind == kind.value, price_versions.c[kind.priced_as.value]) for kind in Kind),
        else_=0,
    )
    right = lines.c.tokens * price
    return (
        select(
            lines.c.id.label("line"),
            lines.c.month,
            right.label("expected"),
            lines.c.nano_usd.label("found"),
        )
        .select_from(lines.join(price_versions))
        .where(lines.c.nano_usd != right)
        .order_by(lines.c.id)
    )


def _unlike_their_hold() -> Query:
    """A line is of its hold's key, model and prices, a team's line of its team, month and day too,
    and there is none while the request runs or where it was voided, nor ever one of rejected
    drafts. (Waste that is found after its month was closed is posted to the open one.)"""
    other = (lines.c[name] != holds.c[name] for name in _SAME)
    not_the_teams = and_(
        lines.c.account_id != WASTE_ACCOUNT,
        or_(
            lines.c.account_id != holds.c.team_id,
            lines.c.month != holds.c.month,
            lines.c.day != holds.c.day,
            holds.c.state != HoldState.SETTLED.value,
            lines.c.kind == Kind.REJECTED_DRAFT.value,
        ),
    )
    return (
        select(
            lines.c.request_id.label("request"),
            lines.c.month,
            _NOTHING.label("expected"),
            func.count().label("found"),
        )
        .select_from(lines.join(holds))
        .where(or_(*other, not_the_teams))
        .group_by(lines.c.request_id, lines.c.month)
        .order_by(lines.c.request_id)
    )


_SAME = ("key_id", "model", "price_version")


def _above_hold() -> Query:
    charged = total(lines.c.nano_usd)
    return (
        select(
            holds.c.request_id.label("request"),
            holds.c.month,
            holds.c.amount_nano_usd.label("expected"),
            charged.label("found"),
        )
        .select_from(lines.join(holds))
        .where(lines.c.account_id != WASTE_ACCOUNT)
        .group_by(holds.c.request_id, holds.c.month, holds.c.amount_nano_usd)
        .having(charged > holds.c.amount_nano_usd)
        .order_by(holds.c.request_id)
    )


def _above_line() -> Query:
    refunded = total(adjustments.c.nano_usd)
    return (
        select(
            lines.c.id.label("line"),
            lines.c.month,
            lines.c.nano_usd.label("expected"),
            refunded.label("found"),
        )
        .select_from(adjustments.join(lines))
        .group_by(lines.c.id, lines.c.month, lines.c.nano_usd)
        .having(refunded > lines.c.nano_usd)
        .order_by(lines.c.id)
    )
