"""The thread that owns an engine: inbox → step → publish. Knows neither Ray nor torch.

Everything that touches the engine runs on this one thread, between two steps, so the engine needs
no locks and an abort takes effect within a step.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

from shards.engine import Engine, EngineStats
from shards.errors import GroupError
from shards.request import Delta, GenerationRequest, Sampling

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")
CANARY_ID = "canary"
# <s> in every Pixtral tokenizer: the shortest prompt that is a prompt.
_CANARY = GenerationRequest(CANARY_ID, prompt=(1,), sampling=Sampling(seed=0, max_tokens=1))


@dataclass(frozen=True, slots=True)
class Emission:
    """What one or more steps brought forth, with the engine's counters after them."""

    deltas: tuple[Delta, ...]
    stats: EngineStats


class EngineLoop:
    """Runs an engine until it is closed or its group fails.

    Args:
        publish: called on the engine's thread after every step.
        failed: called once, on the engine's thread, when the group is lost.
        canary_interval_s: an idle engine generates a real token this often, so that readiness is
            proven rather than assumed and no rank waits on a silent collective for longer.
    """

    def __init__(
        self,
        engine: Engine,
        publish: Callable[[Emission], None],
        failed: Callable[[BaseException], None],
        canary_interval_s: float,
    ) -> None:
        self._engine = engine
        self._publish = publish
        self._failed = failed
        self._canary_interval_s = canary_interval_s
        self._inbox: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._ended = threading.Event()
        self._reason = "the engine has stopped"

    def start(self) -> None:
        self._thread.start()

    def add(self, request: GenerationRequest, features: Sequence[np.ndarray]) -> Future[None]:
        """Admit a request; the future raises what ``Engine.add`` raises."""
        return self._call(lambda: self._engine.add(request, features))

    def abort(self, request_id: str) -> Future[tuple[Delta, ...]]:
        """End a request; resolves to its final deltas, empty when it had ended already."""

        def end() -> tuple[Delta, ...]:
            deltas = self._engine.abort(request_id)
            # Published like any other ending: the freed blocks show at once, and a stream that
            # is still open hears of it.
            self._emit(deltas)
            return deltas

        return self._call(end)

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
            self._engine.add(_CANARY)
            while self._serve_inbox():
                if self._engine.has_work:
                    self._emit(self._engine.step())
        except Exception as error:
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
                self._engine.add(_CANARY)
            return True

    def _token_age_s(self) -> float:
        last_token_at = self._engine.stats().last_token_at
        return inf if last_token_at is None else time.monotonic() - last_token_at

    def _emit(self, deltas: Sequence[Delta]) -> None:
        wanted = tuple(delta for delta in deltas if delta.request_id != CANARY_ID)
        self._publish(Emission(wanted, self._engine.stats()))

    def _refuse_rest(self) -> None:
        while True:
            try:
                task = self._inbox.get_nowait()
            except queue.Empty:
                return
            if task is not None:
                task.future.set_exception(GroupError(self._reason))


@dataclass(frozen=True, slots=True)
class _Task:
    function: Callable[[], Any]
    future: Future[Any]

    def run(self) -> None:
        try:
            self.future.set_result(self.function())
        except Exception as error:
            self.future.set_exception(error)
