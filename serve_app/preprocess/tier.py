"""The preprocessing tier: conversations and encoded pictures in, token ids and patches out."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from serve_app.config import Config
from serve_app.errors import ApiError
from serve_app.garbage import spare_what_is_loaded
from serve_app.log import logger
from serve_app.messages import Patches, PrepareRequest, Prompt
from serve_app.observed import observed
from serve_app.preprocess.fetch import Fetcher
from serve_app.preprocess.prepare import PreparedPrompt, Preparer
from serve_app.serve_handles import put_array
from serve_app.telemetry import FetchMetrics, PreprocessMetrics
from shards.errors import RequestError
from shards.tokenizer import Tokenizer

_logger = logger(__name__)


class Preprocess:
    """Serve deployment; ``threads`` requests at a time leave the event loop free."""

    def __init__(self, config: Config) -> None:
        self._tracing = observed(config, "preprocess")
        self._preparer = Preparer(Tokenizer.from_folder(config.model.path), config.preprocess)
        self._pool = ThreadPoolExecutor(config.preprocess.threads, thread_name_prefix="prepare")
        self._fetcher = Fetcher(config.preprocess, FetchMetrics())
        self._threads = config.preprocess.threads
        self._taken_in = 0
        self._metrics = PreprocessMetrics()
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
                prompt = await self._in_a_thread(whole)
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

    async def _in_a_thread(self, request: PrepareRequest) -> Prompt:
        self._count(1)
        try:
            loop = asyncio.get_running_loop()
            arrived = time.perf_counter()
            return await loop.run_in_executor(self._pool, self._prepare, request, arrived)
        finally:
            self._count(-1)

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

    def _prepare(self, request: PrepareRequest, arrived: float) -> Prompt:
        started = time.perf_counter()
        self._metrics.queue_seconds.observe(started - arrived)
        prepared = self._preparer.prepare(request)
        # A picture that stands in several turns is one array, and is stored once.
        stored = {id(array): put_array(array) for array in _distinct(prepared)}
        patches = tuple(Patches(picture, stored[id(array)]) for picture, array in prepared.pictures)
        if patches:
            self._metrics.pictures.inc(len(patches))
        self._metrics.seconds.observe(time.perf_counter() - started)
        return Prompt(
            prepared.token_ids,
            prepared.text_tokens,
            prepared.image_tokens,
            patches,
            prepared.shown,
        )


def _distinct(prepared: PreparedPrompt) -> list[np.ndarray]:
    return list({id(array): array for _, array in prepared.pictures}.values())
