"""A running answer: the tiers' deltas in, pieces of its choices and its usage out."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from serve_app.errors import GenerationFailed
from serve_app.gateway.choice import ChoiceReader, Piece, ReadingRules, merged
from serve_app.gateway.feed import DeltaFeed
from serve_app.gateway.usage import Meter, Usage
from serve_app.messages import Prompt
from shards.request import Delta, FinishReason


class Generation:
    """Read with ``pieces`` until ``running`` is empty, then (or sooner) ``close``."""

    def __init__(
        self,
        deltas: AsyncGenerator[tuple[Delta, ...], None],
        prompt: Prompt,
        rules: ReadingRules,
        choices: int,
    ) -> None:
        self._feed = DeltaFeed(deltas)
        self._meter = Meter(prompt)
        self._readers = [ChoiceReader(choice, rules) for choice in range(choices)]
        self._running = set(range(choices))
        self._peeked: tuple[Delta, ...] = ()

    @property
    def running(self) -> tuple[int, ...]:
        """Choices that have not ended."""
        return tuple(sorted(self._running))

    @property
    def usage(self) -> Usage:
        """So far."""
        return self._meter.usage

    async def peek(self) -> None:
        """Wait for the first deltas, so that an early failure is raised before anything is sent."""
        self._peeked = await self._feed.next() or ()

    async def pieces(self, timeout_s: float | None = None) -> list[Piece] | None:
        """What the next deltas show, one piece per choice; None if none came in ``timeout_s``.

        Raises:
            ApiError: the generation failed.
        """
        deltas, self._peeked = self._peeked or await self._feed.next(timeout_s), ()
        return None if deltas is None else merged(map(self._read, deltas))

    async def close(self) -> None:
        await self._feed.close()

    def _read(self, delta: Delta) -> Piece:
        if delta.finish_reason is FinishReason.ABORT:
            raise GenerationFailed("the answer was aborted before it was complete")
        self._meter.read(delta)
        if delta.finish_reason is not None:
            self._running.discard(delta.choice)
        return self._readers[delta.choice].read(delta)
