"""Writes ledger lines, and sums them into the usage of their day.

Each line debits a team or the waste account and credits revenue. ``usage_days`` is the sum of the
lines and only ever grows: refunds are kept apart from it (adjusting.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, bindparam, select

from serve_app.accounting.calendar import day_of, month_of
from serve_app.accounting.hold import Charge, Hold, Payer
from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.schema import REVENUE_ACCOUNT, holds, lines, price_versions, usage_days
from serve_app.accounting.writes import Mode, Write, Writes


@dataclass(frozen=True, slots=True)
class Terms:
    """What was fixed when a hold was made, as its row has it."""

    request_id: str
    payer: Payer
    prices: PriceSheet
    month: str
    day: str
    amount_nano_usd: int
    text_tokens: int
    image_tokens: int
    max_output_tokens: int

    @property
    def prompt_tokens(self) -> int:
        return self.text_tokens + self.image_tokens


def terms_of(hold: Hold) -> Terms:
    request = hold.request
    return Terms(
        request_id=request.request_id,
        payer=request.payer,
        prices=request.prices,
        month=hold.month,
        day=hold.day,
        amount_nano_usd=hold.amount_nano_usd,
        text_tokens=request.tokens.text,
        image_tokens=request.tokens.image,
        max_output_tokens=request.max_output_tokens,
    )


def terms_of_row(row: RowMapping) -> Terms:
    return Terms(
        request_id=row["request_id"],
        payer=Payer(row["key_id"], row["team_id"], row["organisation_id"]),
        prices=PriceSheet(
            id=row["price_version"],
            model=row["model"],
            **{name: row[name] for name in _SHEET},
        ),
        **{name: row[name] for name in _FIXED},
    )


def write_lines(
    writes: Writes,
    charged: Iterable[tuple[Terms, int, Charge]],
    now_us: int,
    closed_months: Iterable[str] = (),
) -> list[dict[str, Any]]:
    """Lines, and their sums into the rollup; the lines' rows."""
    rows = [row for item in charged for row in _lines(*item, now_us)]
    for row in rows:
        if row["month"] in closed_months:
            row |= {"month": month_of(now_us), "day": day_of(now_us)}
    writes.add(_LINES, rows)
    writes.add(_USAGE, _rolled_up(rows))
    return rows


def _lines(terms: Terms, account_id: int, charge: Charge, now_us: int) -> Iterator[dict[str, Any]]:
    for kind, count in charge.tokens.items():
        if count:
            yield {
                "request_id": terms.request_id,
                "attempt": charge.attempt,
                "choice": charge.choice,
                "account_id": account_id,
                "counter_account_id": REVENUE_ACCOUNT,
                "kind": kind.value,
                "key_id": terms.payer.key_id,
                "model": terms.prices.model,
                "price_version": terms.prices.id,
                "tokens": count,
                "nano_usd": terms.prices.of(kind) * count,
                "month": terms.month,
                "day": terms.day,
                "posted_us": now_us,
            }


def _rolled_up(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    tokens: Counter[tuple[Any, ...]] = Counter()
    nano_usd: Counter[tuple[Any, ...]] = Counter()
    for row in rows:
        key = tuple(row[name] for name in _USAGE_KEY)
        tokens[key] += row["tokens"]
        nano_usd[key] += row["nano_usd"]
    for key, count in sorted(tokens.items()):
        named = dict(zip(_USAGE_KEY, key, strict=True))
        yield {**named, "tokens": count, "nano_usd": nano_usd[key]}


_USAGE_KEY = ("day", "account_id", "key_id", "model", "kind")
_FIXED = ("month", "day", "amount_nano_usd", "text_tokens", "image_tokens", "max_output_tokens")
_SHEET = ("tier", "text", "image", "cached_text", "cached_image", "output", "effective_us")
SELECT_TERMS = (
    select(holds, *(price_versions.c[name] for name in _SHEET))
    .join(price_versions, price_versions.c.id == holds.c.price_version)
    .where(holds.c.request_id.in_(bindparam("ids", expanding=True)))
)

_LINES = Write(
    Mode.INSERT,
    lines,
    ("request_id", "attempt", "choice", "account_id", "kind"),
    (
        "counter_account_id",
        "key_id",
        "model",
        "price_version",
        "tokens",
        "nano_usd",
        "month",
        "day",
        "posted_us",
    ),
)
_USAGE = Write(Mode.ADD, usage_days, _USAGE_KEY, ("tokens", "nano_usd"))
