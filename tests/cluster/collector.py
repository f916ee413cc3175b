"""An OpenTelemetry collector on loopback that keeps what it is sent."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Received:
    """One span."""

    name: str
    tier: str
    instance: str
    trace_id: str
    span_id: str
    parent_id: str
    started_ns: int
    ended_ns: int
    attributes: dict[str, Any]


class Collector:
    """Attributes:
    url: what ``telemetry.otlp_endpoint`` is to be.
    """

    def __init__(self) -> None:
        self.url = ""
        self.raw = b""
        self._spans: list[Received] = []

    def spans(self, request_id: str) -> list[Received]:
        """Those that name the request."""
        return [s for s in list(self._spans) if s.attributes.get("request_id") == request_id]

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.raw += body
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            of = {a.key: a.value.string_value for a in resource.resource.attributes}
            origin = of["pixtral.tier"], of["service.instance.id"]
            for scope in resource.scope_spans:
                self._spans += [_received(span, *origin) for span in scope.spans]
        return web.Response()


def _received(span: Any, tier: str, instance: str) -> Received:
    attributes = {
        item.key: getattr(item.value, item.value.WhichOneof("value")) for item in span.attributes
    }
    return Received(
        span.name,
        tier,
        instance,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        attributes,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens, on a thread of its own."""
    collector = Collector()
    loop = asyncio.new_event_loop()
    ready = threading.Event()

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/traces", collector.take)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        collector.url = f"http://127.0.0.1:{port}"
        ready.set()

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(serve(), loop)
    assert ready.wait(10)
    try:
        yield collector
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
