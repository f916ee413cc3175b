"""A gateway's hand on the accounts: hold before work is done, settle once it is.

What waits, of all requests, goes into one transaction (writer.py). Whoever calls may be cancelled
at any point: a hold whose caller has gone is voided, a settlement is written all the same. A
gateway that dies stops renewing the leases of its holds, and the sweeper ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import and_, bindparam, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.accounts import Accounts
from serve_app.accounting.calendar import MICROSECONDS, Clock, month_of, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Hold, HoldRequest, HoldState, Outcome, Settlement
from serve_app.accounting.holding import find_own, open_holds
from serve_app.accounting.meter import Meter, NoMeter
from serve_app.accounting.posting import terms_of
from serve_app.accounting.schema import holds
from serve_app.accounting.settling import Closing, check, claim, close_claimed
from serve_app.accounting.writer import Job, Writer
from serve_app.accounting.writes import Writes
from serve_app.config import Accounting
from serve_app.errors import ApiError, LedgerError, LedgerUnavailable

_RENEWALS_PER_LEASE = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Disconnect:
    """A client has left: should this gateway die, its team still pays."""

    request_id: str
    at_us: int


@dataclass(frozen=True, slots=True)
class Renewal:
    request_ids: tuple[str, ...]


Work = HoldRequest | Closing | Disconnect | Renewal
Kind = TypeVar("Kind", HoldRequest, Closing, Disconnect, Renewal)


class Ledger:
    def __init__(
        self,
        database: Database,
        settings: Accounting,
        *,
        owner: str,
        clock: Clock = now_us,
        meter: Meter | None = None,
    ) -> None:
        """``owner`` names this gateway, and no other one ever."""
        self._meter: Meter = meter or NoMeter()
        self._waiting = 0
        self._database = database
        self._owner = owner
        self._clock = clock
        self._timeout_s = settings.hold_timeout_s
        self._lease_us = int(settings.hold_lease_s * MICROSECONDS)
        self._writer: Writer[Work] = Writer(
            self._timed_commit, window_s=settings.batch_window_ms / 1000
        )
        self._open: set[str] = set()
        self._renewing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._writer.start()
        self._renewing = asyncio.create_task(self._renew(), name="ledger-leases", context=Context())

    async def close(self) -> None:
        """Write what waits, for as long as a hold may take."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        await self._writer.close(self._timeout_s)

    async def hold(self, request: HoldRequest) -> Hold:
        """Reserve what the request may cost, durably: once this returns, it may be worked on.

        Raises:
            Unauthorized: the key, its team or organisation is not active.
            InvalidRequest: larger than a limit; it could never be admitted.
            BudgetExhausted, RateLimited: naming the scope; nothing was consumed.
            LedgerUnavailable: the store did not answer in ``hold_timeout_s``.
            LedgerError: its id is in use, its price unknown, or our clock in a closed month.
        """
        if request.request_id in self._open:
            raise LedgerError(f"request {request.request_id} is held for already")
        written = self._writer.submit(request, droppable=True)
        self._open.add(request.request_id)
        started = time.perf_counter()
        self._waits(1)
        granted = False
        try:
            async with asyncio.timeout(self._timeout_s):
                hold: Hold = await written
        except (TimeoutError, asyncio.CancelledError) as error:
            self._abandon(request.request_id)
            if isinstance(error, TimeoutError):
                raise LedgerUnavailable("the accounts cannot be reached; try again") from error
            raise
        except Exception as error:
            self._open.discard(request.request_id)
            if isinstance(error, IntegrityError):
                raise LedgerError(f"nothing can be held for {request.request_id}") from error
            raise
        else:
            granted = True
        finally:
            self._waits(-1)
            waited_s = time.perf_counter() - started
            self._meter.held(request.request_id, waited_s, granted=granted)
        return hold

    async def settle(self, hold: Hold, settlement: Settlement) -> None:
        """End the hold, durably; ending it again changes nothing. Tried until it is done, also
        where the caller is cancelled.

        Raises:
            LedgerError: it charges more than was held; the hold is left to the sweeper.
            LedgerUnavailable: the ledger was closed before it could be written.
        """
        try:
            check(terms_of(hold), settlement)
        except LedgerError:
            self.release(hold)
            raise
        started = time.perf_counter()
        written = self._writer.submit(Closing(hold.request_id, settlement))
        written.add_done_callback(lambda _: self._open.discard(hold.request_id))
        await asyncio.shield(written)
        took_s = time.perf_counter() - started
        self._meter.settled(hold.request_id, settlement.outcome, took_s)

    async def note_disconnect(self, hold: Hold) -> None:
        """Put on record, durably, that the client has left, so that its team pays for what was
        computed even should this gateway die before it settles.

        Raises:
            LedgerUnavailable: the ledger was closed before it could be written.
        """
        await asyncio.shield(self._writer.submit(Disconnect(hold.request_id, self._clock())))

    def release(self, hold: Hold) -> None:
        """Stop renewing the hold's lease: the sweeper is to end it, unless ``settle`` does."""
        self._open.discard(hold.request_id)
        self._meter.left_to_sweeper(hold.request_id)

    def _abandon(self, request_id: str) -> None:
        """End a hold that may have been made and that nobody wants any more."""
        self._open.discard(request_id)
        # With the ledger closed its lease runs out, and the sweeper ends it.
        with contextlib.suppress(LedgerUnavailable):
            self._writer.submit(Closing(request_id, Settlement(Outcome.REFUSED)))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_us / MICROSECONDS / _RENEWALS_PER_LEASE)
            try:
                if self._open:
                    await self._writer.submit(Renewal(tuple(sorted(self._open))))
            except Exception:
                _logger.exception("the leases of open holds could not be renewed")

    def _waits(self, more: int) -> None:
        self._waiting += more
        self._meter.waiting(self._waiting)

    async def _timed_commit(self, jobs: Sequence[Job[Work]]) -> list[Hold | ApiError | None]:
        started = time.perf_counter()
        try:
            results = await self._commit(jobs)
        except LedgerUnavailable:
            self._meter.not_committed()
            raise
        self._meter.committed(len(jobs), time.perf_counter() - started)
        return results

    async def _commit(self, jobs: Sequence[Job[Work]]) -> list[Hold | ApiError | None]:
        """Everything that waits, in one transaction.

        Rows are locked in one order by everybody: holds by request id, accounts by id.
        """
        requests = _all_of(HoldRequest, jobs)
        closings = _all_of(Closing, jobs)
        in_doubt = _all_of(HoldRequest, [job for job in jobs if job.in_doubt])
        async with self._database.write() as connection:
            now = self._clock()
            await _note_disconnects(connection, _all_of(Disconnect, jobs))
            held = await claim(connection, (closing.request_id for closing in closings))
            payers = [*(terms.payer for terms in held.values()), *(r.payer for r in requests)]
            accounts = await Accounts.lock(
                connection,
                (id for payer in payers for id in payer.account_ids),
                {month_of(now), *(terms.month for terms in held.values())},
            )
            writes = Writes()
            close_claimed(writes, accounts, held, closings, now)
            decided = await find_own(connection, in_doubt, self._owner)
            decided |= open_holds(
                writes,
                accounts,
                [request for request in requests if request.request_id not in decided],
                owner=self._owner,
                now_us=now,
                lease_us=self._lease_us,
            )
            accounts.save(writes)
            await writes.send(connection)
            await _extend_leases(connection, _all_of(Renewal, jobs), now + self._lease_us)
        return [
            decided[job.work.request_id] if isinstance(job.work, HoldRequest) else None
            for job in jobs
        ]


async def _note_disconnects(connection: AsyncConnection, notes: Sequence[Disconnect]) -> None:
    if notes:
        rows = [{"id": note.request_id, "at": note.at_us} for note in notes]
        await connection.execute(_NOTE, sorted(rows, key=lambda row: str(row["id"])))


async def _extend_leases(
    connection: AsyncConnection, renewals: Sequence[Renewal], until_us: int
) -> None:
    ids = sorted({id for renewal in renewals for id in renewal.request_ids})
    if ids:
        await connection.execute(_EXTEND, [{"id": id, "until": until_us} for id in ids])


def _all_of(kind: type[Kind], jobs: Sequence[Job[Work]]) -> list[Kind]:
    return [job.work for job in jobs if isinstance(job.work, kind)]


_IS_OPEN = and_(holds.c.request_id == bindparam("id"), holds.c.state == HoldState.HELD)
_NOTE = (
    update(holds)
    .where(_IS_OPEN, holds.c.disconnected_us.is_(None))
    .values(disconnected_us=bindparam("at"))
)
_EXTEND = update(holds).where(_IS_OPEN).values(lease_until_us=bindparam("until"))
