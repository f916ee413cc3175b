"""The open streams of a decoder replica, each an unbounded run of deltas coalesced when taken."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shards.request import Delta


class Stream:
    """One request's deltas on their way to the gateway."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._error: BaseException | None = None
        self._ready = asyncio.Event()

    def put(self, delta: Delta) -> None:
        self._deltas.append(delta)
        self._ready.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._ready.set()

    async def take(self) -> tuple[Delta, ...]:
        """Everything that came since the last call, at least one delta.

        Raises:
            BaseException: what ``fail`` was given, once all deltas before it are taken.
        """
        await self._ready.wait()
        if self._deltas:
            deltas = tuple(self._deltas)
            self._deltas.clear()
            if self._error is None:
                self._ready.clear()
            return deltas
        assert self._error is not None
        raise self._error


class Streams:
    """Routes deltas by request id. Deltas of closed streams are dropped: their readers left."""

    def __init__(self) -> None:
        self._open: dict[str, Stream] = {}

    def open(self, request_id: str) -> Stream:
        if request_id in self._open:
            raise ValueError(f"request {request_id} is already running here")
        self._open[request_id] = Stream()
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
