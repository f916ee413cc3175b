"""The outermost layer: request ids, response headers, and the one place where errors are answered.

Plain ASGI, so that streams pass untouched and nothing is buffered.
"""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import api_error
from serve_app.gateway.error_body import error_response
from serve_app.gateway.fields import Dialect
from serve_app.gateway.request_ids import new_request_id
from serve_app.log import logger
from serve_app.telemetry import GatewayMetrics
from serve_app.tracing import Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

MISTRAL_PREFIX = "/mistral"
CHAT = "chat"
# By the path without its dialect's prefix; what fits none is "other", so that nobody can invent
# label values.
_ROUTES = (
    ("/v1/chat/completions", CHAT),
    ("/v1/tokenize", "tokenize"),
    ("/v1/models", "models"),
    ("/v1/usage", "usage"),
    ("/admin", "admin"),
    ("/healthz", "health"),
    ("/readyz", "health"),
    ("/metrics", "metrics"),
)
_TRACED = (CHAT, "tokenize")
# As proxies write it: the client hung up before it was answered.
_GONE = (499, "client_gone")
_logger = logger(__name__)


class Edge:
    def __init__(
        self,
        app: ASGIApp,
        untrained: bool,
        metrics: GatewayMetrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._app = app
        self._untrained = untrained
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        span = None if self._tracing is None else _begun(self._tracing, scope, request_id)
        answering = False
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal answering, status
            if message["type"] == "http.response.start":
                answering, status = True, message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round(1000 * (time.perf_counter() - started)))
                if self._untrained:
                    headers["x-model-untrained"] = "true"
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            _logger.info("the client hung up", request_id=request_id)
        except Exception as error:
            fault = api_error(error)
            if fault.status >= 500:
                _logger.error("request failed", request_id=request_id, error=error)
            if answering:
                raise
            dialect = dialect_of(scope["path"])
            await error_response(fault, dialect)(scope, receive, send_with_headers)
        finally:
            code = scope["state"].get("error_code", "ok")
            if not status:
                status, code = _GONE
            self._count(route_of(scope["path"]), status, code, time.perf_counter() - started)
            if span is not None:
                _end(span, scope, status, code)

    def _count(self, route: str, status: int, code: str, seconds: float) -> None:
        if self._metrics is None:
            return
        self._metrics.requests.inc(route=route, status=str(status), code=code)
        if route == CHAT and status == HTTPStatus.OK:
            self._metrics.duration.observe(seconds)


def _begun(tracing: Tracing, scope: Scope, request_id: str) -> Span | None:
    """Of what asks a model for something: nobody traces the questions of load balancers."""
    if route_of(scope["path"]) not in _TRACED:
        return None
    return tracing.begin(request_id, Headers(scope=scope).get("traceparent"))


def _end(span: Span, scope: Scope, status: int, code: str) -> None:
    span.set_attribute("http.route", route_of(scope["path"]))
    span.set_attribute("http.response.status_code", status)
    principal = scope["state"].get("principal")
    if principal is not None:
        span.set_attribute("team", principal.team_name)
    if code != "ok":
        span.set_attribute("error.type", code)
    span.end()


def route_of(path: str) -> str:
    path = path.removeprefix(MISTRAL_PREFIX)
    return next((route for start, route in _ROUTES if path.startswith(start)), "other")


def dialect_of(path: str) -> Dialect:
    return Dialect.MISTRAL if path.startswith(f"{MISTRAL_PREFIX}/") else Dialect.OPENAI
