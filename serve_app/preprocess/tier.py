"""The preprocessing tier: conversations and encoded pictures in, token ids and patches out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from serve_app.byte_cache import ByteCache
from serve_app.config import Config
from serve_app.errors import ApiError
from serve_app.garbage import spare_what_is_loaded
from serve_app.log import logger
from serve_app.messages import Patches, PrepareRequest, Prompt
from serve_app.observed import observed
from serve_app.preprocess.cutter import Cutter
from serve_app.preprocess.fetch import Fetcher
from serve_app.preprocess.prepare import Preparer
from serve_app.preprocess.workers import Workers
from serve_app.serve_handles import put_array
from serve_app.telemetry import FetchMetrics, PreprocessMetrics, WorkerMetrics
from shards.errors import RequestError
from shards.tokenizer import Tokenizer

_logger = logger(__name__)
T = TypeVar("T")


class Preprocess:
    """Serve deployment. The event loop only directs: ``threads`` tokenise, workers decode."""

    def __init__(self, config: Config) -> None:
        self._tracing = observed(config, "preprocess")
        self._metrics = PreprocessMetrics()
        self._workers = Workers(config.preprocess, WorkerMetrics())
        self._preparer = Preparer(
            Tokenizer.from_folder(config.model.path),
            config.preprocess,
            Cutter(
                config.preprocess,
                self._workers,
                put_array,
                ByteCache(config.patch_cache_bytes, self._metrics.cached_bytes.set),
            ),
            self._in_a_thread,
        )
        self._pool = ThreadPoolExecutor(config.preprocess.threads, thread_name_prefix="prepare")
        self._fetcher = Fetcher(config.preprocess, FetchMetrics())
        self._threads = config.preprocess.threads
        self._taken_in = 0
        spare_what_is_loaded()

    async def prepare(self, request: PrepareRequest) -> Prompt:
        """Raises:
        ApiError, RequestError: the conversation or a picture is invalid, or cannot be fetched
            (field named).
        """
        arrived_ns = time.time_ns()
        error: str | None = None
        try:
            async with self._fetcher.filled(request) as whole:
                prompt = await self._prepare(whole)
        except Exception as raised:
            error = type(raised).__name__
            if isinstance(raised, ApiError | RequestError):
                self._metrics.refused.inc()
            raise
        finally:
            self._tell(request, arrived_ns, error)
        _logger.info(
            "prepared",
            request_id=request.request_id,
            team=request.trail.team,
            text_tokens=prompt.text_tokens,
            image_tokens=prompt.image_tokens,
        )
        return prompt

    async def _prepare(self, request: PrepareRequest) -> Prompt:
        started = time.perf_counter()
        prepared = await self._preparer.prepare(request)
        known = sum(cut.known for cut in prepared.pictures)
        self._metrics.pictures.inc(len(prepared.pictures) - known)
        self._metrics.known_pictures.inc(known)
        self._metrics.seconds.observe(time.perf_counter() - started)
        return Prompt(
            prepared.token_ids,
            prepared.text_tokens,
            prepared.image_tokens,
            tuple(Patches(cut.picture, cut.patches) for cut in prepared.pictures),
            prepared.shown,
        )

    async def _in_a_thread(self, work: Callable[..., T], *arguments: object) -> T:
        self._count(1)
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._pool, self._begin, time.perf_counter(), work, *arguments
            )
        finally:
            self._count(-1)

    def _begin(self, arrived: float, work: Callable[..., T], *arguments: object) -> T:
        self._metrics.queue_seconds.observe(time.perf_counter() - arrived)
        return work(*arguments)

    def _tell(self, request: PrepareRequest, arrived_ns: int, error: str | None) -> None:
        if self._tracing is not None:
            self._tracing.record(
                "preprocess",
                request.trail.traceparent,
                {"request_id": request.request_id, "pictures": len(request.pictures)},
                started_ns=arrived_ns,
                error=error,
            )

    async def alive(self) -> None:
        """Answers."""

    def _count(self, more: int) -> None:
        self._taken_in += more
        self._metrics.waiting.set(max(0, self._taken_in - self._threads))
