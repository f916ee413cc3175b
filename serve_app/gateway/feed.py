"""Reading a tiers' generator so that it is always closed, whatever happens to the reader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from serve_app.errors import GenerationFailed
from serve_app.gateway.stack import stack_of
from shards.request import Delta

_logger = logging.getLogger(__name__)


class DeltaFeed:
    """One request's deltas, with time-outs.

    The generator runs in tasks of its own: a time-out or the cancellation of the reader (a client
    that hung up) never strikes inside it, so ``close`` can end it in order, which aborts the
    request in the engine.
    """

    def __init__(self, deltas: AsyncGenerator[tuple[Delta, ...], None]) -> None:
        self._deltas = deltas
        self._pending: asyncio.Task[tuple[Delta, ...]] | None = None
        self._closing: asyncio.Task[None] | None = None

    async def next(self, timeout_s: float | None = None) -> tuple[Delta, ...] | None:
        """The next deltas; None when there were none within ``timeout_s`` (they still come).

        Raises:
            ApiError: what the tiers raised; GenerationFailed if the deltas ended too soon.
        """
        if self._pending is None:
            self._pending = asyncio.create_task(self._advance())
        done, _ = await asyncio.wait({self._pending}, timeout=timeout_s)
        if not done:
            return None
        arrived, self._pending = self._pending, None
        return arrived.result()

    async def close(self) -> None:
        """End the generator. Goes on in the background if the caller is cancelled meanwhile."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _advance(self) -> tuple[Delta, ...]:
        try:
            return await anext(self._deltas)
        except StopAsyncIteration:
            raise GenerationFailed("the answer ended before it was complete") from None

    async def _close(self) -> None:
        try:
            if self._pending is not None:
                self._pending.cancel()
                await asyncio.gather(self._pending, return_exceptions=True)
            await self._deltas.aclose()
        except Exception as error:
            _logger.error("closing a stream of deltas failed: %s", stack_of(error))
