"""A load generator: streamed chat requests from many clients, as fast as they go or at a rate.

Run in a process of its own (``run_load``), so that what it costs is not counted as the server's.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from typing import Any

import aiohttp

WARM_UP_S = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """What to send, and how.

    Attributes:
        clients: requests in flight; with a ``rate`` the most of them.
        rate: requests per second, sent on time whatever becomes of the ones before; None is as
            fast as the clients go.
        tokens_marker: what stands in the stream once per event that carries tokens.
    """

    url: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]
    seconds: float
    clients: int
    rate: float | None = None
    tokens_marker: bytes = b"data: {"


@dataclass(frozen=True, slots=True)
class Measured:
    """What came of a load; times in seconds, sorted.

    ``first`` are from the moment a request was due to its first event.
    """

    answered: int
    failed: int
    seconds: float
    first: tuple[float, ...]
    events: int
    bytes: int

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Nearest rank; NaN of nothing."""
    if not ascending:
        return math.nan
    return ascending[max(0, math.ceil(len(ascending) * percent / 100) - 1)]


def run_load(load: Load, ready: Callable[[], None] = lambda: None) -> Measured:
    """Send the load from a new process, after a short one for its own sake.

    Args:
        ready: called in between: from here on it counts.

    Raises:
        RuntimeError: nothing was answered.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        process.submit(_run, replace(load, seconds=WARM_UP_S)).result()
        ready()
        measured = process.submit(_run, load).result()
    if not measured.answered:
        raise RuntimeError(f"{load.url} answered none of {measured.failed} requests")
    return measured


def _run(load: Load) -> Measured:
    return asyncio.run(_send(load))


class _Tally:
    def __init__(self) -> None:
        self.first: list[float] = []
        self.failed = 0
        self.events = 0
        self.bytes = 0


async def _send(load: Load) -> Measured:
    tally = _Tally()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        started = time.perf_counter()
        if load.rate is None:
            end = started + load.seconds
            await asyncio.gather(*(_client(session, load, tally, end) for _ in range(load.clients)))
        else:
            await _paced(session, load, tally, load.rate)
        seconds = time.perf_counter() - started
    return Measured(
        len(tally.first),
        tally.failed,
        seconds,
        tuple(sorted(tally.first)),
        tally.events,
        tally.bytes,
    )


async def _client(session: aiohttp.ClientSession, load: Load, tally: _Tally, end: float) -> None:
    while time.perf_counter() < end:
        await _ask(session, load, tally, time.perf_counter())


async def _paced(session: aiohttp.ClientSession, load: Load, tally: _Tally, rate: float) -> None:
    """Open loop: a slow answer does not delay the requests behind it, and its wait is counted."""
    room = asyncio.Semaphore(load.clients)
    started = time.perf_counter()

    async def one(due: float) -> None:
        async with room:
            await _ask(session, load, tally, due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(load.seconds * rate)):
            due = started + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(one(due))


async def _ask(session: aiohttp.ClientSession, load: Load, tally: _Tally, due: float) -> None:
    first: float | None = None
    try:
        async with session.post(load.url, json=load.body, headers=load.headers) as response:
            response.raise_for_status()
            async for chunk in response.content.iter_any():
                if first is None:
                    first = time.perf_counter() - due
                tally.events += chunk.count(load.tokens_marker)
                tally.bytes += len(chunk)
    except aiohttp.ClientError:
        first = None
    if first is None:
        tally.failed += 1
    else:
        tally.first.append(first)
