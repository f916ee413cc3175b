"""How fast one answer comes, as its caller sees it: two or three observations for each answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from serve_app.telemetry import GatewayMetrics
from shards.request import Delta


class AnswerPace:
    """Made when the request is accepted."""

    def __init__(
        self, metrics: GatewayMetrics, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._accepted = clock()
        self._first: float | None = None
        self._last = 0.0
        self._longest_gap = 0.0
        self._steps = 0

    def delivered(self, deltas: Sequence[Delta]) -> None:
        """Each time that some of the answer comes; a caller sees one choice's tokens in order."""
        now = self._clock()
        self._metrics.completion_tokens.inc(sum(len(delta.token_ids) for delta in deltas))
        if self._first is None:
            self._first = now
            self._metrics.time_to_first_token.observe(now - self._accepted)
            self._metrics.prompt_tokens.inc(deltas[0].prompt_tokens)
        else:
            self._longest_gap = max(self._longest_gap, now - self._last)
            self._steps += sum(len(delta.token_ids) for delta in deltas if delta.choice == 0)
        self._last = now

    def ended(self) -> None:
        if self._first is None or not self._steps:
            return
        self._metrics.token_seconds.observe((self._last - self._first) / self._steps)
        self._metrics.longest_gap.observe(self._longest_gap)
