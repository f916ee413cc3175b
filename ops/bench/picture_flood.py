"""Text requests' latency while pictures flood in: the second half of ``pixtral bench pictures``.

The whole system runs over an engine whose model takes no time. Pictures are quoted (/v1/tokenize),
which decodes and cuts them and encodes nothing: the encoder has processors of its own wherever it
is not a toy. Text is sent on time, alone and during the flood, each over the same seconds.
"""

from __future__ import annotations

import asyncio
import base64
import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

import aiohttp

from ops.bench.gateway import KEY, Target, application_at, on_ray, with_books
from ops.bench.load import percentile, run_load
from ops.bench.pictures import photographs
from ops.bench.postgres import PostgresServer
from serve_app import cluster
from serve_app.app import build
from serve_app.config import Config

GOAL = 1.2
TEXTS_PER_S = 10.0
FLOOD_CLIENTS = 16
_PICTURES = ((640, 480), (1920, 1080))


@dataclass(frozen=True, slots=True)
class FloodRow:
    """Milliseconds to a text answer's first event; pictures/s and refusals/s of the flood."""

    texts_per_s: float
    p50_alone_ms: float
    p50_flooded_ms: float
    x_p50: float
    p95_alone_ms: float
    p95_flooded_ms: float
    pictures_per_s: float
    refused_per_s: float

    @property
    def met(self) -> bool:
        return self.x_p50 <= GOAL


def run(seconds: float = 15.0) -> FloodRow:
    """About a minute and a half.

    Raises:
        RuntimeError: PostgreSQL is not installed, or nothing was answered.
    """
    return on_ray(_drive, seconds)


def _drive(config: Config, state: Path, seconds: float) -> FloodRow:
    with closing(PostgresServer()) as postgres, cluster.connected(config, state):
        postgres.start()
        config = with_books(config, postgres.create("ledger"))
        cluster.start_edge(config)
        root = f"http://127.0.0.1:{config.gateway.port}/v1"
        with application_at(build(config), "/"):
            text = Target("text", f"{root}/chat/completions", config.model.name)
            load = text.paced(seconds, TEXTS_PER_S)
            alone = run_load(load)
            with _flood(f"{root}/tokenize", config.model.name) as outcomes:
                flooded = run_load(load)
            answered, refused, flood_s = outcomes
    ms = {
        (name, share): 1e3 * percentile(measured.first, share)
        for name, measured in (("alone", alone), ("flooded", flooded))
        for share in (50, 95)
    }
    return FloodRow(
        TEXTS_PER_S,
        ms["alone", 50],
        ms["flooded", 50],
        ms["flooded", 50] / ms["alone", 50],
        ms["alone", 95],
        ms["flooded", 95],
        answered / flood_s,
        refused / flood_s,
    )


@contextmanager
def _flood(url: str, model: str) -> Iterator[list[float]]:
    """Answered, refused and for how many seconds: filled in when the block has ended."""
    context = multiprocessing.get_context("spawn")
    ended, results = context.Event(), context.Queue()
    process = context.Process(target=_send_pictures, args=(url, model, ended, results))
    process.start()
    outcomes: list[float] = []
    try:
        yield outcomes
    finally:
        ended.set()
        outcomes += results.get(timeout=60)
        process.join()


def _send_pictures(url: str, model: str, ended: Event, results: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    # The sender's own work is not the system's, and gives way to it: in a session of its own, as
    # niceness counts within one only where Linux shares cores out by session.
    os.setsid()
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text("19")
    bodies = [_body(model, data) for size in _PICTURES for data in photographs(size, 12)]
    started = time.perf_counter()
    found = asyncio.run(_flooding(url, bodies, ended))
    refused = sum(count for status, count in found.items() if status in (429, 503))
    results.put([found[200], refused, time.perf_counter() - started])


async def _flooding(url: str, bodies: Sequence[bytes], ended: Event) -> Counter[int]:
    found: Counter[int] = Counter()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}

    async def client(number: int, session: aiohttp.ClientSession) -> None:
        while not ended.is_set():
            number += 1
            body = bodies[number % len(bodies)]
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                found[answer.status] += 1
                if answer.status != 200:
                    await asyncio.sleep(float(answer.headers.get("retry-after", 1)))

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*(client(7 * number, session) for number in range(FLOOD_CLIENTS)))
    return found


def _body(model: str, data: bytes) -> bytes:
    url = "data:image/jpeg;base64," + base64.b64encode(data).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    return json.dumps({"model": model, "messages": [{"role": "user", "content": [part]}]}).encode()
