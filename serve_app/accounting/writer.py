"""Group commit: one task writes what many callers wait for, in one transaction at a time.

While a transaction commits, the next batch gathers; so a slow disk makes batches larger, not
callers slower by their number. A fast one would make many small ones, each of which costs the same:
so the next begins a moment (``window_s``) after the last has ended. Who comes alone never waits.
Knows nothing of what it writes.

A batch that the store cannot take (``LedgerUnavailable``) is tried again until it can; what is
wrong with one job fails that job alone. The task runs in a context of its own, so that nothing of
a caller, its cancellation included, reaches a transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from serve_app.errors import LedgerUnavailable

MAX_BATCH = 512
_FIRST_RETRY_S = 0.05
_LAST_RETRY_S = 1.0

_logger = logging.getLogger(__name__)

Work = TypeVar("Work")


@dataclass(slots=True, eq=False)
class Job(Generic[Work]):
    """Something to write and who waits for it.

    Attributes:
        droppable: need not be written once nobody waits for it.
        in_doubt: an earlier try may have been committed.
    """

    work: Work
    result: asyncio.Future[Any]
    droppable: bool
    in_doubt: bool = False

    @property
    def wanted(self) -> bool:
        return not (self.droppable and self.result.done())


# Writes a batch in one transaction; a result for each job, an exception being one that it is told.
Commit = Callable[[Sequence[Job[Work]]], Awaitable[Sequence[Any]]]


class Writer(Generic[Work]):
    def __init__(self, commit: Commit[Work], *, window_s: float = 0.0) -> None:
        self._commit = commit
        self._window_s = window_s
        self._queue: asyncio.Queue[Job[Work]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._due = 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="ledger-writer", context=Context())

    def submit(self, work: Work, *, droppable: bool = False) -> asyncio.Future[Any]:
        """Have it written; the future has the result. One that nobody waits for any more is still
        written, unless ``droppable``.

        Raises:
            LedgerUnavailable: not started, or closed.
        """
        if self._task is None:
            raise LedgerUnavailable("the ledger is not open")
        job = Job(work, asyncio.get_running_loop().create_future(), droppable)
        self._queue.put_nowait(job)
        return job.result

    async def close(self, patience_s: float) -> None:
        """Write what waits, for so long; take nothing more."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            await asyncio.wait_for(self._queue.join(), patience_s)
        except TimeoutError:
            _logger.error("closed with settlements unwritten: the sweeper is to end their holds")
        task.cancel()
        await asyncio.wait({task})

    async def _run(self) -> None:
        jobs: list[Job[Work]] = []
        retry_s = _FIRST_RETRY_S
        try:
            while True:
                jobs = await self._gather(jobs)
                left = await self._write(jobs)
                self._due = asyncio.get_running_loop().time() + self._window_s
                for _ in range(len(jobs) - len(left)):
                    self._queue.task_done()
                jobs = left
                if jobs:
                    await asyncio.sleep(retry_s)
                retry_s = min(_LAST_RETRY_S, 2 * retry_s) if jobs else _FIRST_RETRY_S
        finally:
            self._give_up(jobs)

    async def _gather(self, jobs: list[Job[Work]]) -> list[Job[Work]]:
        """What an outage has left and what waits; one at least."""
        if not jobs:
            jobs = [await self._queue.get()]
            await asyncio.sleep(self._due - asyncio.get_running_loop().time())
        while len(jobs) < MAX_BATCH and not self._queue.empty():
            jobs.append(self._queue.get_nowait())
        return jobs

    async def _write(self, jobs: Sequence[Job[Work]]) -> list[Job[Work]]:
        """Returns what is to be tried again, in order."""
        wanted = [job for job in jobs if job.wanted]
        if not wanted:
            return []
        try:
            results = await self._commit(wanted)
        except LedgerUnavailable as error:
            _logger.warning("the accounts cannot be written; trying again: %r", error.__cause__)
            for job in wanted:
                job.in_doubt = True
            return wanted
        except Exception as error:
            if len(wanted) > 1:
                return await self._write_singly(wanted)
            results = [error]
        for job, result in zip(wanted, results, strict=True):
            _tell(job, result)
        return []

    async def _write_singly(self, jobs: list[Job[Work]]) -> list[Job[Work]]:
        """One of them cannot be written: it must not take its neighbours with it."""
        for position, job in enumerate(jobs):
            if await self._write([job]):
                return jobs[position:]
        return []

    def _give_up(self, jobs: list[Job[Work]]) -> None:
        while not self._queue.empty():
            jobs.append(self._queue.get_nowait())
        for job in jobs:
            _tell(job, LedgerUnavailable("the ledger was closed before this was written"))


def _tell(job: Job[Work], result: Any) -> None:
    if job.result.done():
        return
    if isinstance(result, BaseException):
        job.result.set_exception(result)
        # Read once here: whoever has left needs no reminder that nobody read it.
        job.result.exception()
    else:
        job.result.set_result(result)
