"""The pool of workers: each file of each request is looked at, decoded and cut by one of them.

    look, cut ──► Turns ──► lane 1: a thread ── its process
                       └──► lane 2: …

A process that takes too long or too much memory over a file, or that dies of it, is replaced; the
file is refused and no other notices. If it took long because others had the processors, its sender
is told to come back. One that dies for no reason that we know gets a second try in a fresh process,
for the fault may lie with a file before.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from serve_app.errors import InvalidRequest, Overloaded
from serve_app.log import logger
from serve_app.preparing import Preprocess
from serve_app.preprocess.child import (
    FileRefused,
    Patches,
    Starved,
    TooBig,
    TooSlow,
    WorkerLost,
    WorkerProcess,
)
from serve_app.preprocess.turns import Turn, Turns
from serve_app.preprocess.wire import Cut, Look
from serve_app.preprocess.wish import Pages, Sight, Wish
from serve_app.telemetry import WorkerMetrics
from shards.errors import KernelError
from shards.grid import Grid
from shards.pixel_kernels import native_library

_logger = logger(__name__)
_ATTEMPTS = 2
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CutPicture(Generic[T]):
    """``patches``: what ``store`` made of them, float32 [grid.patches, 3 · 16 · 16]."""

    grid: Grid
    patches: T


@dataclass(frozen=True, slots=True)
class _Job:
    """``noun``: what the file is, to its sender."""

    param: str
    noun: str
    work: Callable[[WorkerProcess], object]
    done: Future[object]
    since: float


class Workers:
    """Ready when made. Its calls may come from several event loops."""

    def __init__(self, config: Preprocess, metrics: WorkerMetrics) -> None:
        """Raises WorkerLost: no worker starts here, or none can be confined as asked."""
        self._config = config
        self._metrics = metrics
        self._kernels = _native_library()
        self._waiting: Turns[_Job] = Turns()
        self._changed = threading.Condition()
        self._closed = False
        ready: list[Future[None]] = [Future() for _ in range(config.workers)]
        self._lanes = [
            threading.Thread(target=self._lane, args=(each,), name="pictures", daemon=True)
            for each in ready
        ]
        for lane in self._lanes:
            lane.start()
        try:
            for each in ready:
                each.result()
        except BaseException:
            self.close()
            raise

    async def look(self, data: bytes, wish: Wish, param: str, turn: Turn) -> Sight:
        """What a file shows, by its headers.

        Raises:
            InvalidRequest: the file is not one that is read, or costs too much; ``param`` is named.
            Overloaded: others had the processors all the time.
        """
        task = Look(len(data), wish)
        timeout_s = self._config.picture_timeout_s
        return await self._done(
            turn, param, wish, lambda worker: worker.look(data, task, timeout_s)
        )

    async def cut(
        self,
        data: bytes,
        wish: Wish,
        max_sides: Sequence[int],
        param: str,
        turn: Turn,
        store: Callable[[Patches], T],
    ) -> tuple[CutPicture[T], ...]:
        """A file's pictures, each scaled to its largest side and cut.

        Args:
            max_sides: one for each picture that ``look`` found.
            store: called in a thread with each picture's patches; they are gone when it returns.

        Raises:
            InvalidRequest, Overloaded: as ``look``.
        """
        task = Cut(len(data), wish, tuple(max_sides))

        def work(worker: WorkerProcess) -> tuple[CutPicture[T], ...]:
            cut: list[CutPicture[T]] = []
            started = time.perf_counter()

            def take(grid: Grid, patches: Patches) -> None:
                nonlocal started
                self._metrics.seconds.observe(time.perf_counter() - started)
                cut.append(CutPicture(grid, store(patches)))
                started = time.perf_counter()

            worker.cut(data, task, self._config.picture_timeout_s, take)
            return tuple(cut)

        return await self._done(turn, param, wish, work)

    def close(self) -> None:
        """Ends all workers; what waits is refused."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for lane in self._lanes:
            lane.join()
        while len(self._waiting):
            self._waiting.take().done.set_exception(Overloaded("the tier is shutting down"))

    async def _done(
        self, turn: Turn, param: str, wish: Wish, work: Callable[[WorkerProcess], T]
    ) -> T:
        noun = "document" if isinstance(wish, Pages) else "picture"
        done: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise Overloaded("the tier is shutting down")
            self._waiting.add(turn, _Job(param, noun, work, done, time.monotonic()))  # type: ignore[arg-type]  # the same T
            self._metrics.waiting.set(len(self._waiting))
            self._changed.notify()
        return await asyncio.wrap_future(done)

    def _lane(self, ready: Future[None]) -> None:
        """One worker's life after the other."""
        try:
            worker: WorkerProcess | None = self._started()
        except BaseException as error:
            ready.set_exception(error)
            return
        ready.set_result(None)
        while (job := self._next()) is not None:
            if job.done.set_running_or_notify_cancel():
                worker = self._do(job, worker)
        if worker is not None:
            worker.end()

    def _next(self) -> _Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._waiting))
            if self._closed:
                return None
            job = self._waiting.take()
            self._metrics.waiting.set(len(self._waiting))
        self._metrics.queue_seconds.observe(time.monotonic() - job.since)
        return job

    def _do(self, job: _Job, worker: WorkerProcess | None) -> WorkerProcess | None:
        """Ends the job one way or other; returns the worker that is left, if one is."""
        error: Exception
        for _ in range(_ATTEMPTS):
            try:
                worker = self._fit(worker)
                job.done.set_result(job.work(worker))
                return worker
            except FileRefused as refusal:
                error = InvalidRequest(refusal.message, param=job.param, code=refusal.code)
                break
            except (TooSlow, TooBig) as breach:
                worker, error = None, self._too_costly(breach, job)
                break
            except Starved as starved:
                self._ended("starved", starved)
                worker, error = None, Overloaded("the machine is too busy to decode pictures")
                break
            except WorkerLost as lost:
                self._ended("died", lost)
                worker, error = None, _undecodable(job)
            except Exception as fault:
                # Ours: the store's, say. The worker may be in the middle of a file.
                if worker is not None:
                    worker.end()
                worker, error = None, fault
                break
        job.done.set_exception(error)
        return worker

    def _fit(self, worker: WorkerProcess | None) -> WorkerProcess:
        """A worker that lives and is not worn out."""
        if worker is not None:
            if worker.done < self._config.worker_tasks and worker.alive:
                return worker
            worker.end()
            self._metrics.ended.inc(reason="recycled" if worker.done else "died")
        return self._started()

    def _started(self) -> WorkerProcess:
        config = self._config
        worker = WorkerProcess(
            config.rules,
            config.max_file_bytes,
            config.worker_memory_bytes,
            filter_required=config.sandbox == "required",
            kernels=self._kernels,
        )
        if not worker.filtered:
            _logger.warning("the kernel does not filter the system calls of picture workers")
        return worker

    def _too_costly(self, breach: WorkerLost, job: _Job) -> InvalidRequest:
        slow = isinstance(breach, TooSlow)
        self._ended("time" if slow else "memory", breach)
        what = f"time to decode; at most {self._config.picture_timeout_s:g} s are spent"
        return InvalidRequest(
            f"the {job.noun} takes too much {what if slow else 'memory to decode'}",
            param=job.param,
            code=f"{job.noun}_too_costly",
        )

    def _ended(self, reason: str, error: WorkerLost) -> None:
        self._metrics.ended.inc(reason=reason)
        _logger.warning("a picture worker was ended", reason=reason, error=error)


def _native_library() -> Path | None:
    try:
        return native_library()
    except KernelError as error:
        _logger.warning("pixels are prepared without native kernels", error=error)
        return None


def _undecodable(job: _Job) -> InvalidRequest:
    return InvalidRequest(
        f"the {job.noun} cannot be decoded", param=job.param, code=f"invalid_{job.noun}"
    )
