"""Reading and closing a tiers' generator, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.errors import GenerationFailed, Overloaded
from serve_app.gateway.feed import DeltaFeed
from shards.request import Delta

DELTA = Delta("r", 0, (7,), 1, 1)


class Source:
    """A tiers' generator whose abort takes a while."""

    def __init__(self, items: int = 1, error: Exception | None = None, ends: bool = False) -> None:
        self.aborted = False
        self._items, self._error, self._ends = items, error, ends

    async def deltas(self):
        try:
            for _ in range(self._items):
                yield (DELTA,)
            if self._error is not None:
                raise self._error
            if not self._ends:
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.02)
            self.aborted = True


async def test_a_time_out_loses_nothing() -> None:
    gate = asyncio.Event()

    async def slow():
        await gate.wait()
        yield (DELTA,)

    feed = DeltaFeed(slow())
    assert await feed.next(0.01) is None
    assert await feed.next(0.01) is None
    gate.set()
    assert await feed.next(1) == (DELTA,)
    await feed.close()


async def test_errors_come_through_and_an_early_end_is_one() -> None:
    feed = DeltaFeed(Source(1, Overloaded("busy")).deltas())
    assert await feed.next() == (DELTA,)
    with pytest.raises(Overloaded):
        await feed.next()
    ended = DeltaFeed(Source(0, ends=True).deltas())
    with pytest.raises(GenerationFailed):
        await ended.next()


@pytest.mark.parametrize("waiting", [True, False])
async def test_closing_waits_for_the_abort(waiting: bool) -> None:
    source = Source()
    feed = DeltaFeed(source.deltas())
    await feed.next()
    if waiting:
        assert await feed.next(0.01) is None
    await feed.close()
    assert source.aborted
    await feed.close()


async def test_the_abort_is_finished_even_if_the_closer_is_cancelled() -> None:
    source = Source()
    feed = DeltaFeed(source.deltas())
    await feed.next()
    assert await feed.next(0.01) is None
    closer = asyncio.create_task(feed.close())
    await asyncio.sleep(0.005)
    closer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closer
    assert not source.aborted
    await asyncio.sleep(0.05)
    assert source.aborted


async def test_a_cancelled_reader_leaves_the_generator_to_be_closed() -> None:
    source = Source()
    feed = DeltaFeed(source.deltas())
    await feed.next()
    reader = asyncio.create_task(feed.next())
    await asyncio.sleep(0.01)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert not source.aborted
    await feed.close()
    assert source.aborted
