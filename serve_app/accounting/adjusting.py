"""Gives money back: a refund of a team's line, in whole or in part, borne by the waste account.

Lines are never changed. A refund refers to its line and is posted to the current month, which is
open, whatever month the line is of: it lowers what key, team and organisation have posted there
(below zero if need be, which lets them spend it) and raises the platform's waste. What was used
stays as it was: neither lines nor ``usage_days`` know of refunds, reports add them from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.accounts import Accounts
from serve_app.accounting.audit import record
from serve_app.accounting.calendar import Clock, day_of, month_of, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Payer
from serve_app.accounting.money import format_usd
from serve_app.accounting.schema import WASTE_ACCOUNT, adjustments, holds, lines
from serve_app.accounting.sums import total
from serve_app.accounting.writes import Writes
from serve_app.errors import Conflict, InvalidRequest, NotFound

_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Adjustment:
    """A refund as it was booked.

    Attributes:
        tokens: whole tokens that the amount pays for; of all of a line's refunds together, no more
            than the line's.
        month, day: when it was posted (UTC), not the line's.
    """

    id: int
    line_id: int
    tokens: int
    nano_usd: int
    month: str
    day: str
    reason: str
    actor: str
    posted_us: int


async def adjust(
    database: Database,
    line_id: int,
    nano_usd: int | None,
    *,
    reason: str,
    actor: str,
    clock: Clock = now_us,
) -> Adjustment:
    """Refund so much of a line, None being what is left of it.

    Raises:
        InvalidRequest: an amount or a reason that cannot be.
        NotFound: no such line.
        Conflict: the platform bears it already, or less than that is left of it.
        LedgerUnavailable
    """
    _require(nano_usd is None or nano_usd > 0, "nano_usd", "must be above 0, or absent")
    _require(bool(reason.strip()), "reason", "must say why")
    _require(len(reason) <= _MAX_REASON, "reason", f"must be of {_MAX_REASON} characters at most")
    async with database.write() as connection:
        at_us = clock()
        line = await _line(connection, line_id)
        payer = Payer(line["key_id"], line["account_id"], line["organisation_id"])
        month = month_of(at_us)
        # The locks also make refunds of one line wait for each other.
        accounts = await Accounts.lock(connection, payer.account_ids, [month])
        amount, tokens = await _share(connection, line, nano_usd)
        values: dict[str, Any] = {
            "line_id": line_id,
            "tokens": tokens,
            "nano_usd": amount,
            "month": month,
            "day": day_of(at_us),
            "reason": reason,
            "actor": actor,
            "posted_us": at_us,
        }
        made = await connection.execute(
            insert(adjustments).values(values).returning(adjustments.c.id)
        )
        for account_id in payer.account_ids:
            accounts.balance(account_id, month).posted -= amount
        accounts.post_to_platform(WASTE_ACCOUNT, month, amount)
        writes = Writes()
        accounts.save(writes)
        await writes.send(connection)
        detail = {"nano_usd": str(amount), "reason": reason, "request_id": line["request_id"]}
        subject = f"line {line_id}"
        await record(
            connection, at_us=at_us, actor=actor, action="refund", subject=subject, detail=detail
        )
        return Adjustment(id=made.scalar_one(), **values)


async def _line(connection: AsyncConnection, line_id: int) -> RowMapping:
    query = (
        select(lines, holds.c.organisation_id)
        .join(holds, holds.c.request_id == lines.c.request_id)
        .where(lines.c.id == line_id)
    )
    line = (await connection.execute(query)).mappings().one_or_none()
    if line is None:
        raise NotFound(f"there is no line {line_id}", param="line_id")
    if line["account_id"] == WASTE_ACCOUNT:
        raise Conflict(f"line {line_id} is waste: the platform bears it already", param="line_id")
    return line


async def _share(
    connection: AsyncConnection, line: RowMapping, nano_usd: int | None
) -> tuple[int, int]:
    """Amount and tokens of a refund; the last one of a line takes what is left of both."""
    refunded = select(total(adjustments.c.nano_usd), total(adjustments.c.tokens)).where(
        adjustments.c.line_id == line["id"]
    )
    given, tokens_given = (await connection.execute(refunded)).one()
    left = line["nano_usd"] - given
    amount = left if nano_usd is None else nano_usd
    if not 0 < amount <= left:
        raise Conflict(
            f"of line {line['id']} {format_usd(left)} USD are left to refund", param="nano_usd"
        )
    if amount == left:
        return amount, line["tokens"] - tokens_given
    return amount, amount * line["tokens"] // line["nano_usd"]


def _require(met: bool, param: str, rule: str) -> None:
    if not met:
        raise InvalidRequest(f"{param}: {rule}", param=param)
