from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trustme

from serve_app.config import parse_config
from serve_app.preprocess.fetch import Fetcher
from tests.serve_app.preprocess.fetching import Noted
from tests.serve_app.preprocess.internet import HOST, PUBLIC, Internet, WebServer


@pytest.fixture
async def server(authority: trustme.CA) -> AsyncIterator[WebServer]:
    """Of all hosts below example.com."""
    async with WebServer(authority, "*.example.com", "example.com").running() as server:
        yield server


@pytest.fixture
def internet(server: WebServer) -> Internet:
    """``HOST`` is there, at a public address; tests add what else there is."""
    return Internet(server, **{HOST: [[PUBLIC]]})


@pytest.fixture
async def fetcher(
    internet: Internet, trust: ssl.SSLContext
) -> AsyncIterator[Callable[..., Fetcher]]:
    """Fetch from any public host, over http too, unless told otherwise:
    ``fetcher(allow_public=False)``."""
    async with AsyncExitStack() as stack:

        def make(max_picture_bytes: int = 100_000, **fetching: Any) -> Fetcher:
            settings = {"allow_public": True, "allow_http": True, **fetching}
            values = {"max_picture_bytes": max_picture_bytes, "fetch": settings}
            config = parse_config({"model": {"path": "/m"}, "preprocess": values}).preprocess
            made = Fetcher(config, Noted(), internet, trust)  # type: ignore[arg-type]
            stack.push_async_callback(made.close)
            return made

        yield make
