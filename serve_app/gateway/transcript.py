"""One answer as it is being made: bytes in from its owner, out to whoever attends.

A kept transcript can be read from the first byte by any number of readers, at any time; one that
is not kept has one reader and forgets what that reader has seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Head:
    """Of a 200. ``headers`` are the answer's; ``rates`` only tell whom it is made for, and now."""

    media_type: str
    headers: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, str] = field(default_factory=dict)


class Transcript:
    def __init__(self, *, keep: bool) -> None:
        self._keep = keep
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._error: Exception | None = None
        self._ended = False
        self._news = asyncio.Event()

    @property
    def opened(self) -> bool:
        return self._head is not None

    @property
    def ended(self) -> bool:
        return self._ended

    @property
    def failed(self) -> bool:
        return self._error is not None

    @property
    def kept(self) -> bytes:
        """Everything written so far; of a transcript that is not kept, what was not read."""
        return b"".join(self._chunks)

    def open(self, head: Head) -> None:
        self._head = head
        self._tell()

    def write(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            self._tell()

    def end(self) -> None:
        self._ended = True
        self._tell()

    def fail(self, error: Exception) -> None:
        """There will be no answer but ``error``, or no more of it. After the end this is idle."""
        if not self._ended:
            self._error = error
            self.end()

    async def head(self) -> Head:
        """Once there is one.

        Raises:
            Exception: what ``fail`` was given before there was.
        """
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._news.wait()
        return self._head

    async def read(self, ping_interval_s: float) -> AsyncIterator[bytes | None]:
        """From the first byte to the end; None whenever none came for ``ping_interval_s``."""
        seen = 0
        while True:
            news = self._news
            if seen < len(self._chunks):
                unseen = b"".join(self._chunks[seen:])
                if self._keep:
                    seen = len(self._chunks)
                else:
                    self._chunks.clear()
                yield unseen
            elif self._ended:
                return
            else:
                try:
                    async with asyncio.timeout(ping_interval_s):
                        await news.wait()
                except TimeoutError:
                    yield None

    def _tell(self) -> None:
        """Wake every reader; those that come later wait for the next event."""
        self._news.set()
        self._news = asyncio.Event()
