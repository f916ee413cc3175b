"""The open streams of a decoder replica, each a run of deltas that becomes one delta a choice.

An item costs Serve about 3 ms of CPU on its way from here to the caller (group, gateway and proxy;
ops/bench/README.md), whatever it carries. So a stream waits between items, the longer the more
streams share the replica: beyond ``items_per_s`` in all, tokens travel together instead of queueing
up behind each other. First tokens and endings never wait. What waits for a slow reader is the
tokens alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from shards.request import Delta, TokenLogprob

# A tenth of every core: the rest is left to compute and to answer with. On two cores, 8 streams
# show what they have 8 times a second each, 64 of them once.
ITEMS_PER_S_AND_CORE = 32
# What one event loop passes on beside its other work, however many cores there are.
MOST_ITEMS_PER_S = 512
# Nobody reads faster than this.
LEAST_INTERVAL_S = 0.01


class Stream:
    """One request's deltas on their way to the gateway."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        # By choice, the one that was added to last at the end.
        self._gathered: dict[int, _Gathered] = {}
        self._error: BaseException | None = None
        self._ready = asyncio.Event()
        self._urgent = asyncio.Event()
        self._due = 0.0

    def put(self, delta: Delta) -> None:
        gathered = self._gathered.pop(delta.choice, None) or _Gathered(delta)
        gathered.add(delta)
        self._gathered[delta.choice] = gathered
        self._ready.set()
        if delta.finish_reason is not None:
            self._urgent.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._ready.set()
        self._urgent.set()

    async def take(self) -> tuple[Delta, ...]:
        """Everything that came since the last call, as one delta a choice.

        Raises:
            BaseException: what ``fail`` was given, once all deltas before it are taken.
        """
        await self._ready.wait()
        await self._wait_until_due()
        self._due = asyncio.get_running_loop().time() + self._streams.interval_s
        if self._gathered:
            deltas = tuple(gathered.whole() for gathered in self._gathered.values())
            self._gathered.clear()
            if self._error is None:
                self._ready.clear()
                self._urgent.clear()
            return deltas
        assert self._error is not None
        raise self._error

    async def _wait_until_due(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self._due):
                await self._urgent.wait()


@dataclass(slots=True)
class _Gathered:
    """A choice's deltas as one."""

    latest: Delta
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def add(self, delta: Delta) -> None:
        self.latest = delta
        self.token_ids += delta.token_ids
        self.logprobs += delta.logprobs

    def whole(self) -> Delta:
        """Counts are cumulative, so the latest are those of all."""
        return replace(self.latest, token_ids=tuple(self.token_ids), logprobs=tuple(self.logprobs))


class Streams:
    """Routes deltas by request id. Deltas of closed streams are dropped: their readers left."""

    def __init__(self, items_per_s: float | None = None) -> None:
        """``items_per_s``: of all streams together; left out, what this machine's cores afford."""
        self._open: dict[str, Stream] = {}
        self._items_per_s = affordable_items_per_s() if items_per_s is None else items_per_s

    @property
    def interval_s(self) -> float:
        """Between two items of one stream."""
        return max(LEAST_INTERVAL_S, len(self._open) / self._items_per_s)

    def open(self, request_id: str) -> Stream:
        if request_id in self._open:
            raise ValueError(f"request {request_id} is already running here")
        self._open[request_id] = Stream(self)
        return self._open[request_id]

    def close(self, request_id: str) -> None:
        self._open.pop(request_id, None)

    def deliver(self, deltas: Iterable[Delta]) -> None:
        for delta in deltas:
            stream = self._open.get(delta.request_id)
            if stream is not None:
                stream.put(delta)

    def fail(self, error: BaseException) -> None:
        for stream in self._open.values():
            stream.fail(error)


def affordable_items_per_s() -> float:
    """By the cores that this process may run on."""
    return min(ITEMS_PER_S_AND_CORE * len(os.sched_getaffinity(0)), MOST_ITEMS_PER_S)
