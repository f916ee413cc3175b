"""What makes the books equal to what the engine computed, whatever died.

    a round:  look ─► end in the engine ─► read journals ─► recover ─► audit

Recovering ends the holds of dead gateways (recovery.py). Auditing books as waste what was computed
for closed holds and not charged (auditor.py). The order makes both right: what may still run is
ended first, so that its counts are final, and everything is looked for before the journals are
read, so that what they say of it is known whole.

Every step is idempotent and bears another gateway doing the same: a sweeper can be killed between
any two statements, and the lease (lease.py) only saves the others the work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from sqlalchemy import String, exists, literal, select, tuple_

from serve_app.accounting.auditor import Audit, audit
from serve_app.accounting.calendar import MICROSECONDS, Clock, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.hold import HoldState, Outcome
from serve_app.accounting.journal_intake import Intake, Journals, take_in
from serve_app.accounting.lease import Lease
from serve_app.accounting.meter import Meter, NoMeter
from serve_app.accounting.recovery import recover
from serve_app.accounting.schema import holds, lines
from serve_app.config import Accounting
from serve_app.errors import LedgerUnavailable, Overloaded

T = TypeVar("T")
_logger = logging.getLogger(__name__)
LEASE = "chores"
# Holds of each kind that a round looks at, and that a transaction handles.
PAGE = 500
BATCH = 100
_START = (0, "")
# Written into the statement, as a planner sees no partial index through a parameter.
_HELD = literal(HoldState.HELD.value, String, literal_execute=True)

# Something else that one gateway does for all, every ``sweep_interval_s``.
Chore = Callable[[], Awaitable[object]]


class Engines(Journals, Protocol):
    """What is needed here of ``gateway/tiers.py``."""

    async def abort(self, request_ids: Sequence[str]) -> None: ...


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a round did.

    Attributes:
        recovered: holds ended for gateways that had died.
        postponed: holds left for a later round, as a group did not say what it did for them.
        failed: holds that could not be handled; the log says why.
        full: there may be more than a round looks at.
    """

    intake: Intake
    recovered: int
    audit: Audit
    postponed: int
    failed: int
    full: bool


class Sweeper:
    """Sweeps, and does the other ``chores``, while its gateway, ``owner``, has the lease."""

    def __init__(
        self,
        database: Database,
        engines: Engines,
        settings: Accounting,
        *,
        owner: str,
        chores: Sequence[Chore] = (),
        clock: Clock = now_us,
        meter: Meter | None = None,
    ) -> None:
        self._meter: Meter = meter or NoMeter()
        self._database = database
        self._engines = engines
        self._chores = (self._sweep_all, *chores)
        self._clock = clock
        self._interval_s = settings.sweep_interval_s
        self._patience_us = round(settings.audit_patience_s * MICROSECONDS)
        self._hold_lease_us = round(settings.hold_lease_s * MICROSECONDS)
        self._recover_from_us = 0
        self._lease = Lease(database, LEASE, owner, clock=clock)
        # Where the last look at closed holds ended: those that wait must not hide the rest.
        self._looked_until = _START

    async def run(self) -> None:
        """Until cancelled; another gateway may then have the lease at once."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for chore in self._chores:
                    tasks.create_task(self._repeat(chore))
        finally:
            with suppress(LedgerUnavailable):
                await self._lease.give_back()

    async def sweep(self) -> SweepReport:
        """One round, whoever has the lease.

        Raises:
            LedgerUnavailable
            Overloaded: the journals cannot be read now.
        """
        expired, finished, unfinished = await self._look()
        may_run = [*expired, *unfinished]
        ended = await self._end(may_run)
        intake = await take_in(self._database, self._engines)
        recovered, failed = await self._in_batches(expired if ended else [], self._recover)
        final = [*finished, *(may_run if ended else [])]
        audits, unaudited = await self._in_batches(final, self._audit)
        report = SweepReport(
            intake=intake,
            recovered=sum(recovered),
            audit=sum(audits, Audit()),
            postponed=0 if ended else len(may_run),
            failed=failed + unaudited,
            full=ended and PAGE in (len(expired), len(finished) + len(unfinished)),
        )
        self._meter.swept(report)
        return report

    async def _sweep_all(self) -> None:
        while (await self.sweep()).full and await self._lease.take():
            pass

    async def _repeat(self, chore: Chore) -> None:
        while True:
            try:
                if await self._lease.take():
                    await chore()
            except LedgerUnavailable as error:
                # No gateway could renew its holds' leases meanwhile: those that live do so first.
                self._recover_from_us = self._clock() + self._hold_lease_us
                _logger.warning("a chore waits: %s", error.message)
            except Overloaded as error:
                _logger.warning("a chore waits: %s", error.message)
            except Exception:
                _logger.exception("a chore failed; it will be tried again")
            await asyncio.sleep(self._interval_s)

    async def _look(self) -> tuple[list[str], list[str], list[str]]:
        """Holds whose lease is over, and closed ones to be audited: those of which nothing can be
        running any more, and the others.

        A completed answer ended in the engine; a lost attempt before it perhaps did not.
        """
        now = self._clock()
        several_attempts = exists().where(
            lines.c.request_id == holds.c.request_id, lines.c.attempt > 1
        )
        expired = (
            select(holds.c.request_id)
            .where(holds.c.state == _HELD, holds.c.lease_until_us <= now)
            .order_by(holds.c.lease_until_us)
            .limit(PAGE)
        )
        closed = (
            select(
                holds.c.request_id,
                holds.c.closed_us,
                (holds.c.outcome == Outcome.COMPLETED).label("completed"),
                several_attempts.label("several_attempts"),
            )
            .where(
                holds.c.audited_us.is_(None),
                tuple_(holds.c.closed_us, holds.c.request_id) > self._looked_until,
            )
            .order_by(holds.c.closed_us, holds.c.request_id)
            .limit(PAGE)
        )
        async with self._database.read() as connection:
            over = now >= self._recover_from_us
            expired_ids = list(await connection.scalars(expired)) if over else []
            rows = list(await connection.execute(closed))
        self._looked_until = _START
        if len(rows) == PAGE:
            self._looked_until = (rows[-1].closed_us, rows[-1].request_id)
        finished: list[str] = []
        unfinished: list[str] = []
        for row in rows:
            sure = row.completed and not row.several_attempts
            (finished if sure else unfinished).append(row.request_id)
        return expired_ids, finished, unfinished

    async def _end(self, request_ids: Sequence[str]) -> bool:
        """Whether none of them runs any more and the journals have the last word on each."""
        try:
            if request_ids:
                await self._engines.abort(request_ids)
        except Overloaded as error:
            _logger.warning("%d holds wait: %s", len(request_ids), error.message)
            return False
        return True

    async def _recover(self, request_ids: Sequence[str]) -> int:
        async with self._database.write() as connection:
            return await recover(connection, request_ids, self._clock())

    async def _audit(self, request_ids: Sequence[str]) -> Audit:
        async with self._database.write() as connection:
            return await audit(
                connection, request_ids, self._clock(), patience_us=self._patience_us
            )

    async def _in_batches(
        self, request_ids: Sequence[str], work: Callable[[Sequence[str]], Awaitable[T]]
    ) -> tuple[list[T], int]:
        """What ``work`` says of each batch, and how many holds failed. A batch that fails is
        halved until one hold is left, so that it keeps no other from being handled."""
        waiting = [request_ids[at : at + BATCH] for at in range(0, len(request_ids), BATCH)]
        done: list[T] = []
        failed = 0
        while waiting:
            batch = waiting.pop()
            half = len(batch) // 2
            try:
                done.append(await work(batch))
            except LedgerUnavailable:
                raise
            except Exception:
                if half:
                    waiting += [batch[:half], batch[half:]]
                    continue
                failed += 1
                _logger.exception("a hold cannot be closed", extra={"request_id": batch[0]})
        return done, failed
