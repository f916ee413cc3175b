"""Ends holds whose gateway has died, by what the engine's journals say."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.auditor import tallies_of
from serve_app.accounting.database import padded
from serve_app.accounting.hold import Charge, HoldState, Outcome, Settlement
from serve_app.accounting.posting import Terms
from serve_app.accounting.schema import holds
from serve_app.accounting.settling import Closing, check, claim, close_holds
from serve_app.accounting.tokens import CHARGED, Tokens
from serve_app.errors import LedgerError
from shards.tally import Tally

_logger = logging.getLogger(__name__)


def recovery(counted: Iterable[Tally], *, disconnected: bool) -> Settlement:
    """How a hold ends whose gateway died.

    A team whose client had left before pays as it would have, had the gateway lived: for the last
    attempt, the one that was being delivered. Else, and for attempts before it, nobody pays.
    """
    tallies = sorted(counted, key=lambda tally: (tally.attempt, tally.choice))
    if not tallies:
        return Settlement(Outcome.REFUSED)
    last = tallies[-1].attempt if disconnected else None
    charges = (
        Charge(tally.attempt, tally.choice, _tokens(tally))
        for tally in tallies
        if tally.attempt == last
    )
    return Settlement(Outcome.RECOVERED, tuple(charges))


async def recover(connection: AsyncConnection, request_ids: Sequence[str], now_us: int) -> int:
    """End those that are still held and whose lease is still over, inside the caller's
    transaction: a gateway that was only slow may have renewed or settled in between.

    Their counts must be final. Returns how many were ended.
    """
    found = await connection.execute(
        select(holds.c.request_id, holds.c.disconnected_us)
        .where(
            holds.c.request_id.in_(padded(request_ids)),
            holds.c.state == HoldState.HELD,
            holds.c.lease_until_us <= now_us,
        )
        .order_by(holds.c.request_id)
        .with_for_update(skip_locked=True, key_share=True)
    )
    disconnected = {row.request_id: row.disconnected_us is not None for row in found}
    counted = await tallies_of(connection, list(disconnected))
    closings = [
        _closing(
            terms, recovery(counted.get(request_id, ()), disconnected=disconnected[request_id])
        )
        for request_id, terms in (await claim(connection, disconnected)).items()
    ]
    return len(await close_holds(connection, closings, now_us))


def _closing(terms: Terms, settlement: Settlement) -> Closing:
    """A team pays for no more than was reserved, whatever the engine counted."""
    try:
        check(terms, settlement)
    except LedgerError:
        _logger.exception("not charged", extra={"request_id": terms.request_id})
        settlement = Settlement(Outcome.RECOVERED)
    return Closing(terms.request_id, settlement)


def _tokens(tally: Tally) -> Tokens:
    return Tokens(**{kind.value: getattr(tally, kind.value) for kind in CHARGED})
