"""Makes the lines of closed holds equal to what the engine counted, or says where they are not.

What was computed and not charged becomes lines on the waste account. What was charged and not
computed is an alarm: nothing is mended behind anybody's back, and ``pixtral usage reconcile`` goes
on showing the difference.

A charge can also be without its count because the group's journal is not to be had: its node is
away, or gone with its disk. Such a hold is looked at again each round for ``patience_us`` and is
then closed to audits: as *unproven* where no count of that attempt ever came, else with an alarm.
Unproven is not wrong: the gateway charged what the engine told it, which only it can witness. Were
the node to come back, its counts would open the audit again (journal_intake.py).
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.comparison import Booked, Discrepancy, compare
from serve_app.accounting.database import padded
from serve_app.accounting.hold import HoldState
from serve_app.accounting.schema import WASTE_ACCOUNT, holds, lines, tallies
from serve_app.accounting.settling import Waste, book_waste
from serve_app.accounting.tokens import Kind
from shards.tally import Tally

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """How the holds of an audit came off.

    Attributes:
        audited: closed to audits; ``wasteful``, ``unproven`` and ``alarms`` are among them.
        wasteful: waste was booked for them.
        unproven: charged for an attempt of which no count ever came.
        alarms: lines and counts differ, and that was logged.
        waiting: their counts may still come.
    """

    audited: int = 0
    wasteful: int = 0
    unproven: int = 0
    alarms: int = 0
    waiting: int = 0

    def __add__(self, other: Audit) -> Audit:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Audit(*(mine + theirs for mine, theirs in pairs))


async def audit(
    connection: AsyncConnection, request_ids: Sequence[str], now_us: int, *, patience_us: int
) -> Audit:
    """Audit closed holds whose counts are final, inside the caller's transaction.

    Those that are open, audited already or being audited elsewhere are left alone.

    Raises:
        LedgerUnavailable
    """
    found = await connection.execute(
        select(holds.c.request_id, holds.c.closed_us)
        .where(
            holds.c.request_id.in_(padded(request_ids)),
            holds.c.state != HoldState.HELD,
            holds.c.audited_us.is_(None),
        )
        .order_by(holds.c.request_id)
        .with_for_update(skip_locked=True, key_share=True)
    )
    closed = {row.request_id: row.closed_us for row in found}
    counted = await tallies_of(connection, list(closed))
    booked = await _lines_of(connection, list(closed))
    wastes: list[Waste] = []
    audited: list[str] = []
    wasteful = unproven = alarms = 0
    for request_id, closed_us in closed.items():
        comparison = compare(counted.get(request_id, ()), booked.get(request_id, ()))
        if comparison.discrepancies and now_us - closed_us < patience_us:
            continue
        audited.append(request_id)
        wastes += [Waste(request_id, charge) for charge in comparison.waste]
        wasteful += bool(comparison.waste)
        unproven += any(item.counted is None for item in comparison.discrepancies)
        alarms += any(item.counted is not None for item in comparison.discrepancies)
        for item in comparison.discrepancies:
            _report(request_id, item)
    await book_waste(connection, wastes, now_us)
    await connection.execute(
        update(holds).where(holds.c.request_id.in_(padded(audited))).values(audited_us=now_us)
    )
    return Audit(len(audited), wasteful, unproven, alarms, len(closed) - len(audited))


async def tallies_of(
    connection: AsyncConnection, request_ids: Sequence[str]
) -> Mapping[str, Sequence[Tally]]:
    """By request; none for those for which nothing was computed."""
    rows = await connection.execute(
        select(tallies).where(tallies.c.request_id.in_(padded(request_ids)))
    )
    found: dict[str, list[Tally]] = defaultdict(list)
    for row in rows.mappings():
        fields = {name: value for name, value in row.items() if name != "group"}
        found[row["request_id"]].append(Tally(**fields))
    return found


async def _lines_of(
    connection: AsyncConnection, request_ids: Sequence[str]
) -> Mapping[str, Sequence[Booked]]:
    rows = await connection.execute(
        select(lines).where(lines.c.request_id.in_(padded(request_ids)))
    )
    found: dict[str, list[Booked]] = defaultdict(list)
    for row in rows:
        waste = row.account_id == WASTE_ACCOUNT
        line = Booked(row.attempt, row.choice, Kind(row.kind), row.tokens, waste)
        found[row.request_id].append(line)
    return found


def _report(request_id: str, item: Discrepancy) -> None:
    fields = {
        "request_id": request_id,
        "attempt": item.attempt,
        "choice": item.choice,
        "kind": item.kind.value,
        "booked_tokens": item.booked,
        "counted_tokens": item.counted,
    }
    if item.counted is None:
        _logger.warning("a charge without a count: its group's journal never came", extra=fields)
    else:
        _logger.error("the ledger and the engine disagree", extra=fields)
