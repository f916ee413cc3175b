"""Work on a thread, one piece at a time and by turns among the teams; asked twice, it is done once.

Standard library only.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from shards.errors import QueueFullError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Job(Generic[K, T]):
    key: K
    team: str
    outcome: asyncio.Future[T]
    waiting: int = 0
    begun: bool = False


class Turns(Generic[K, T]):
    """Used from one event loop.

    Args:
        work: done in ``pool`` for a key.
        patience_s: how long anybody waits for it to begin.
        team_limit: pieces of one team that may wait.
    """

    def __init__(
        self, pool: Executor, work: Callable[[K], T], *, patience_s: float, team_limit: int
    ) -> None:
        self._pool = pool
        self._work = work
        self._patience_s = patience_s
        self._team_limit = team_limit
        self._jobs: dict[K, _Job[K, T]] = {}
        # Whose turn is next stands first; who has nothing waiting stands nowhere.
        self._queues: OrderedDict[str, deque[_Job[K, T]]] = OrderedDict()
        self._worker: asyncio.Task[None] | None = None

    async def result(self, key: K, team: str) -> T:
        """What nobody waits for any more is not begun: cancelling takes the piece back.

        Raises:
            QueueFullError: too much waits, or for too long.
            Exception: whatever the work raises.
        """
        job = self._jobs.get(key) or self._enter(key, team)
        job.waiting += 1
        try:
            await asyncio.wait({job.outcome}, timeout=self._patience_s)
            if not job.begun:
                raise QueueFullError("other requests' schemas are being compiled")
            return await asyncio.shield(job.outcome)
        finally:
            job.waiting -= 1
            if not job.waiting and not job.begun:
                self._leave(job)

    def _enter(self, key: K, team: str) -> _Job[K, T]:
        queue = self._queues.setdefault(team, deque())
        if len(queue) >= self._team_limit:
            raise QueueFullError("too many schemas wait to be compiled")
        job: _Job[K, T] = _Job(key, team, asyncio.get_running_loop().create_future())
        queue.append(job)
        self._jobs[key] = job
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._run())
        return job

    def _leave(self, job: _Job[K, T]) -> None:
        queue = self._queues[job.team]
        queue.remove(job)
        if not queue:
            del self._queues[job.team]
        del self._jobs[job.key]

    async def _run(self) -> None:
        while self._queues:
            team, queue = self._queues.popitem(last=False)
            job = queue.popleft()
            if queue:
                self._queues[team] = queue
            job.begun = True
            try:
                job.outcome.set_result(
                    await asyncio.get_running_loop().run_in_executor(
                        self._pool, self._work, job.key
                    )
                )
            except Exception as error:
                job.outcome.set_exception(error)
                # Marks it as seen: everybody may have gone meanwhile.
                job.outcome.exception()
            except asyncio.CancelledError:
                job.outcome.cancel()
                raise
            del self._jobs[job.key]
