"""Asking a Fetcher, and what it said."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource, PrepareRequest
from serve_app.preprocess.fetch import Fetcher
from serve_app.telemetry import FETCH_OUTCOMES
from shards.conversation import Conversation
from tests.serve_app.preprocess.internet import HOST

URL = f"https://{HOST}/a.png"
UNREACHABLE = "the picture's host cannot be reached"


def asking(*urls: str) -> PrepareRequest:
    """A request whose picture n is at ``urls[n]``, with the field ``p{n}``."""
    sources = tuple(PictureSource(b"", f"p{place}", url) for place, url in enumerate(urls))
    return PrepareRequest("r", Conversation(()), sources)


async def fetched(fetcher: Fetcher, *urls: str) -> list[bytes]:
    async with fetcher.filled(asking(*urls)) as request:
        return [source.data for source in request.pictures]


async def missed(fetcher: Fetcher, *urls: str) -> InvalidRequest:
    """What the caller is told; nothing of ours is in it."""
    with pytest.raises(InvalidRequest) as caught:
        await fetched(fetcher, *urls)
    error = caught.value
    assert error.param == "p0"
    for secret in ("127.0.0.1", "10.0.0.1", HOST, "a.png", "0x", "Errno", "aiohttp"):
        assert secret not in error.message
    assert error.__cause__ is None
    return error


class Noted:
    """Instruments that keep what they are told; Ray's own tell nobody."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.level = 0.0
        self.fetches = self.bytes = self.seconds = self.fetching = self.held_bytes = self

    def inc(self, value: float = 1.0, outcome: str = "") -> None:
        if outcome:
            assert outcome in FETCH_OUTCOMES
            self.outcomes[outcome] += 1

    def observe(self, value: float) -> None:
        assert value >= 0

    def set(self, value: float) -> None:
        self.level = value


def outcomes(fetcher: Fetcher) -> Mapping[str, int]:
    """How often each was counted, so far."""
    metrics: Any = fetcher._metrics
    return dict(metrics.outcomes)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what is bound to come; a test that waits in vain times out."""
    while not condition():
        await asyncio.sleep(0.005)
