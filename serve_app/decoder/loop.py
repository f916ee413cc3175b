"""The thread that owns an engine: inbox → step → journal → publish. Knows neither Ray nor torch.

What a step brought is noted and published while the device computes the next one, or at once when
there is none.

Everything that touches the engine runs on this one thread, between two steps, so the engine needs
no locks and an abort takes effect within a step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from shards.engine import Engine
from shards.errors import GroupError
from shards.request import Delta, GenerationRequest, Sampling, never_begun
from shards.stats import EngineStats
from shards.tally import Tally

if TYPE_CHECKING:
    import numpy as np

    from shards.constraint import Grammar

T = TypeVar("T")
CANARY_ID = "canary"
# An abort may overtake its request; it is on its way for seconds at most.
BARRED_LIMIT = 4096
# <s> in every Pixtral tokenizer: the shortest prompt that is a prompt.
_CANARY = GenerationRequest(CANARY_ID, prompt=(1,), sampling=Sampling(seed=0, max_tokens=1))


@dataclass(frozen=True, slots=True)
class Emission:
    """What one or more steps brought forth, with the engine's counters after them."""

    deltas: tuple[Delta, ...]
    stats: EngineStats


class Journal(Protocol):
    """Where the engine's tallies go first (journal.py)."""

    def append(self, tallies: Sequence[Tally]) -> None:
        """Raises GroupError when they are not safe: no delta may leave then."""


class EngineLoop:
    """Runs an engine until it is closed or its group fails.

    Args:
        publish: called on the engine's thread once for every step.
        failed: called once, on the engine's thread, when the group is lost.
        canary_interval_s: an idle engine generates a real token this often, so that readiness is
            proven rather than assumed and no rank waits on a silent collective for longer.
        journal: notes what was computed before it is published; None to keep none.
    """

    def __init__(
        self,
        engine: Engine,
        publish: Callable[[Emission], None],
        failed: Callable[[BaseException], None],
        canary_interval_s: float,
        journal: Journal | None = None,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._publish = publish
        self._failed = failed
        self._canary_interval_s = canary_interval_s
        self._inbox: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._ended = threading.Event()
        self._reason = "the engine has stopped"
        # request id → last attempt that may not run; latest last
        self._barred: dict[str, float] = {}
        # What the last step brought, until it is published
        self._pending: Sequence[Delta] | None = None

    def start(self) -> None:
        self._thread.start()

    def add(
        self,
        request: GenerationRequest,
        features: Sequence[np.ndarray],
        grammar: Grammar | None = None,
    ) -> Future[None]:
        """Admit a request; the future raises what ``Engine.add`` raises.

        One that was aborted before it came ends at once.
        """
        return self._call(lambda: self._admit(request, features, grammar))

    def abort(self, request_ids: Sequence[str], attempt: float = inf) -> Future[None]:
        """End requests, those too that come later; unknown ids are fine.

        Resolves when their last deltas are published, and what they count is in the journal.

        Args:
            attempt: the last that is ended; a later one may run.
        """
        return self._call(lambda: self._end(request_ids, attempt))

    def stats(self) -> Future[EngineStats]:
        return self._call(self._engine.stats)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop after the step in progress."""
        self._inbox.put(None)
        self._ended.wait(timeout_s)

    def _call(self, function: Callable[[], T]) -> Future[T]:
        future: Future[T] = Future()
        self._inbox.put(_Task(function, future))
        if self._ended.is_set():
            self._refuse_rest()
        return future

    def _run(self) -> None:
        try:
            # Warms the ranks up, and nothing is ready before a token came out.
            self._engine.add(_CANARY, metered=False)
            while self._serve_inbox():
                if self._engine.has_work:
                    self._pending = self._engine.step(meanwhile=self._pass_on)
                if not self._engine.has_work:
                    self._pass_on()
            self._pass_on()
        except Exception as error:
            # A step that failed takes nothing back of the one before. What that brought leaves
            # unless it cannot be noted, which is no news then: the group ends anyway.
            with suppress(GroupError):
                self._pass_on()
            self._reason = f"the engine has stopped: {error}"
            self._ended.set()
            self._failed(error)
        finally:
            self._ended.set()
            self._refuse_rest()

    def _serve_inbox(self) -> bool:
        """Do what was asked since the last step, waiting for it if idle; False to stop."""
        try:
            task = self._inbox.get(block=not self._engine.has_work, timeout=self._canary_interval_s)
            while task is not None:
                task.run()
                task = self._inbox.get_nowait()
            return False
        except queue.Empty:
            if not self._engine.has_work and self._token_age_s() >= self._canary_interval_s:
                self._engine.add(_CANARY, metered=False)
            return True

    def _admit(
        self,
        request: GenerationRequest,
        features: Sequence[np.ndarray],
        grammar: Grammar | None,
    ) -> None:
        if request.attempt > self._barred.get(request.request_id, 0):
            self._engine.add(request, features, grammar=grammar)
        else:
            self._emit(never_begun(request))

    def _end(self, request_ids: Sequence[str], attempt: float) -> None:
        self._pass_on()
        deltas: list[Delta] = []
        for request_id in request_ids:
            self._barred[request_id] = max(attempt, self._barred.pop(request_id, 0))
            deltas += self._engine.abort(request_id, attempt)
        while len(self._barred) > BARRED_LIMIT:
            del self._barred[next(iter(self._barred))]
        # Published like any other ending: the freed blocks show at once, and a stream that is
        # still open hears of it.
        self._emit(deltas)

    def _token_age_s(self) -> float:
        last_token_at = self._engine.stats().last_token_at
        return inf if last_token_at is None else time.monotonic() - last_token_at

    def _pass_on(self) -> None:
        """Emit what the last step brought, once."""
        deltas, self._pending = self._pending, None
        if deltas is not None:
            self._emit(deltas)

    def _emit(self, deltas: Sequence[Delta]) -> None:
        tallies = self._engine.tallies()
        if self._journal is not None:
            self._journal.append(tallies)
        wanted = tuple(delta for delta in deltas if delta.request_id != CANARY_ID)
        self._publish(Emission(wanted, self._engine.stats()))

    def _refuse_rest(self) -> None:
        while True:
            try:
                task = self._inbox.get_nowait()
            except queue.Empty:
                return
            if task is not None:
                task.refuse(GroupError(self._reason))


@dataclass(frozen=True, slots=True)
class _Task:
    function: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        """Do it even where nobody waits for it any more: an abort must happen all the same, and
        whoever gave up on an admission ends it by one.

        Raises:
            GroupError: the group is lost.
        """
        awaited = self.future.set_running_or_notify_cancel()
        try:
            result = self.function()
        except Exception as error:
            if awaited:
                self.future.set_exception(error)
            if isinstance(error, GroupError):
                raise
        else:
            if awaited:
                self.future.set_result(result)

    def refuse(self, error: GroupError) -> None:
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
