"""When the group commit's transactions begin."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

from serve_app.accounting.writer import Writer

WINDOW_S = 0.2


@asynccontextmanager
async def writer():
    batches: list[list[str]] = []

    async def commit(jobs):
        batches.append([job.work for job in jobs])
        return [None] * len(jobs)

    opened = Writer[str](commit, window_s=WINDOW_S)
    opened.start()
    yield opened, batches
    await opened.close(1.0)


async def test_who_comes_alone_never_waits():
    async with writer() as (opened, batches):
        async with asyncio.timeout(WINDOW_S / 2):
            await opened.submit("first")
        await asyncio.sleep(1.1 * WINDOW_S)
        async with asyncio.timeout(WINDOW_S / 2):
            await opened.submit("second")
    assert batches == [["first"], ["second"]]


async def test_what_comes_within_the_window_after_a_transaction_shares_the_next():
    async with writer() as (opened, batches):
        await opened.submit("first")
        second = opened.submit("second")
        await asyncio.sleep(WINDOW_S / 2)
        assert not second.done()
        await opened.submit("third")
    assert batches == [["first"], ["second", "third"]]
