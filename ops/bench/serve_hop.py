"""What a request pays for Ray Serve under different settings: ``python -m ops.bench serve-hop``.

Each setting gets a fresh Ray on loopback, an ingress and one inner tier. What was concluded is in
README.md beside this file and set in ``serve_app/cluster.py``.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
from fastapi import FastAPI
from ray import serve
from starlette.responses import StreamingResponse

from ops.bench.ports import free_ports
from serve_app import cluster
from serve_app.config import Config, load_config

ONE_LOOP = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
}
BUFFERED = {"RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Environment of the cluster, and how the inner tier is called."""

    name: str
    environment: dict[str, str]
    by_reference: bool


SETTINGS = (
    Settings("Serve's defaults, by reference", {}, by_reference=True),
    Settings("one loop, by reference", ONE_LOOP, by_reference=True),
    Settings("one loop, buffered logs, by reference", ONE_LOOP | BUFFERED, by_reference=True),
    Settings("one loop, buffered logs, gRPC", ONE_LOOP | BUFFERED, by_reference=False),
)
SECONDS = 4.0
CLIENTS = 32
STREAM_ITEMS = 200


@dataclass(frozen=True, slots=True)
class Result:
    """One row: two-hop requests and items streamed from the inner tier to the client."""

    settings: str
    p50_alone_ms: float
    requests_per_s: float
    items_per_s_alone: float
    items_per_s_16_streams: float


class Inner:
    """The tier behind: answers at once."""

    async def call(self, value: int) -> int:
        return value

    async def stream(self, items: int) -> AsyncGenerator[int, None]:
        for item in range(items):
            yield item


@serve.ingress()
class Edge:
    """The tier in front: passes everything on."""

    def __init__(self, inner: Any, by_reference: bool) -> None:
        self._inner = inner.options(_by_reference=by_reference)

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()

        @app.get("/call")
        async def call() -> int:
            value: int = await self._inner.call.remote(1)
            return value

        @app.get("/stream")
        async def stream(items: int) -> StreamingResponse:
            async def lines() -> AsyncGenerator[str, None]:
                async for item in self._inner.options(stream=True).stream.remote(items):
                    yield f"data: {item}\n\n"

            return StreamingResponse(lines(), media_type="text/event-stream")

        return app


def run() -> list[Result]:
    """Measure every setting, one after the other."""
    return [_measure(settings) for settings in SETTINGS]


def _measure(settings: Settings) -> Result:
    """Start a system with these settings and load it from a process of its own: Ray reads them
    when it is imported, and this process has imported it."""
    http, dashboard, gcs, metrics = free_ports(4)
    config = load_config(
        None,
        {
            "model.path": "unused",
            "gateway.port": http,
            "ray.dashboard_port": dashboard,
            "ray.gcs_port": gcs,
            "ray.metrics_port": metrics,
        },
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.dict(cluster.SERVE_SETTINGS, settings.environment, clear=True),
        patch.dict(os.environ, cluster.environment(config, Path(folder))),
    ):
        state = Path(folder)
        cluster.start(config, state)
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                return process.submit(_drive, settings, config, state).result()
        finally:
            cluster.stop(config, state)


def _drive(settings: Settings, config: Config, state: Path) -> Result:
    with (
        patch.dict(cluster.SERVE_SETTINGS, settings.environment, clear=True),
        cluster.connected(config, state),
    ):
        cluster.start_edge(config)
        inner = serve.deployment(Inner, max_ongoing_requests=128).bind()
        edge = serve.deployment(Edge, max_ongoing_requests=128)
        serve.run(edge.bind(inner, settings.by_reference), name="hop")
        return asyncio.run(_load(settings.name, f"http://127.0.0.1:{config.gateway.port}"))


async def _load(name: str, url: str) -> Result:
    async with aiohttp.ClientSession(url) as session:
        await _calls(session, 1, 1.0)
        alone = await _calls(session, 1, SECONDS)
        crowd = await _calls(session, CLIENTS, SECONDS)
        return Result(
            name,
            statistics.median(alone) * 1e3,
            len(crowd) / SECONDS,
            await _streams(session, 1),
            await _streams(session, 16),
        )


async def _calls(session: aiohttp.ClientSession, clients: int, seconds: float) -> list[float]:
    """Latencies (s) of the requests that many clients could make in that time."""
    end = time.perf_counter() + seconds

    async def client() -> list[float]:
        latencies = []
        while (started := time.perf_counter()) < end:
            async with session.get("/call") as response:
                await response.read()
            latencies.append(time.perf_counter() - started)
        return latencies

    return [
        latency
        for one in await asyncio.gather(*(client() for _ in range(clients)))
        for latency in one
    ]


async def _streams(session: aiohttp.ClientSession, streams: int) -> float:
    """Items per second over all streams."""

    async def client() -> int:
        async with session.get("/stream", params={"items": STREAM_ITEMS}) as response:
            return (await response.text()).count("data: ")

    started = time.perf_counter()
    items = sum(await asyncio.gather(*(client() for _ in range(streams))))
    return items / (time.perf_counter() - started)
