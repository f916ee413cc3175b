"""A decoder group's numbers on their way to Ray's metrics, which take tens of microseconds each.

The engine speaks after every step; what it has counted is told ``REPORT_S`` apart. Knows no Ray.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from math import inf

from serve_app.config import Decoder
from serve_app.messages import Generate
from serve_app.telemetry import DecoderMetrics
from shards.request import Delta, Timing
from shards.stats import EngineStats

REPORT_S = 0.5


class GroupReport:
    def __init__(
        self,
        metrics: DecoderMetrics,
        decoder: Decoder,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``clock`` is the engine's."""
        self._metrics = metrics
        self._clock = clock
        self._heard: EngineStats | None = None
        self._told: EngineStats | None = None
        self._metrics.token_timeout.set(decoder.token_timeout_s)
        self._metrics.batch_limit.set(decoder.max_batch_sequences)
        self._metrics.waiting_limit.set(decoder.max_waiting)

    def hear(self, stats: EngineStats) -> None:
        """After every emission of the engine."""
        before, self._heard = self._heard, stats
        steps = stats.steps_total - (before.steps_total if before else 0)
        if steps > 0:
            seconds = stats.step_seconds_total - (before.step_seconds_total if before else 0.0)
            self._metrics.step_duration.observe(seconds / steps)

    def began(self, job: Generate) -> None:
        """A request that lacks nothing."""
        brought = {features.picture for features in job.features}
        kept = sum(picture not in brought for picture in job.request.pictures)
        if kept:
            self._metrics.kept_pictures.inc(kept)

    def ended(self, delta: Delta) -> None:
        """A choice that a stream has seen the end of; with choice 0, its request's waits."""
        if delta.finish_reason is None:
            return
        self._metrics.finished.inc(reason=delta.finish_reason.value)
        if delta.choice == 0 and delta.timing is not None:
            self._waits(delta.timing)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.tell()
            await asyncio.sleep(REPORT_S)

    def tell(self) -> None:
        stats = self._heard
        if stats is None:
            return
        last = stats.last_token_at
        self._metrics.token_age.set(inf if last is None else self._clock() - last)
        before, self._told = self._told, stats
        if stats is before:
            return
        metrics = self._metrics
        metrics.running.set(stats.running)
        metrics.waiting.set(stats.waiting)
        metrics.blocks_total.set(stats.blocks_total)
        metrics.blocks_free.set(stats.blocks_free)
        metrics.prompt_tokens.set(stats.prompt_tokens_total)
        metrics.generated_tokens.set(stats.generated_tokens_total)
        metrics.steps.set(stats.steps_total)
        self._count(stats, before)

    def _count(self, stats: EngineStats, before: EngineStats | None) -> None:
        def since(name: str) -> float:
            value: float = getattr(stats, name)
            return value - (getattr(before, name) if before is not None else 0)

        metrics = self._metrics
        metrics.tokens.inc(since("prompt_tokens_total"), kind="prompt")
        metrics.tokens.inc(since("cached_tokens_total"), kind="cached")
        metrics.tokens.inc(since("generated_tokens_total"), kind="generated")
        metrics.tokens.inc(since("unmetered_tokens_total"), kind="unmetered")
        metrics.drafts.inc(since("accepted_tokens_total"), verdict="accepted")
        metrics.drafts.inc(since("rejected_tokens_total"), verdict="refused")
        metrics.put_back.inc(since("put_back_total"))
        metrics.recomputed.inc(since("recomputed_tokens_total"))
        metrics.step_count.inc(since("steps_total"))
        metrics.step_seconds.inc(since("step_seconds_total"))
        metrics.step_sequences.inc(since("step_sequences_total"))

    def _waits(self, timing: Timing) -> None:
        if timing.started is not None:
            self._metrics.queue_seconds.observe(timing.started - timing.arrived)
            if timing.first_token is not None:
                self._metrics.prefill_seconds.observe(timing.first_token - timing.started)
