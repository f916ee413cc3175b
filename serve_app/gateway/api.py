"""The REST application over whatever keeps the ``Tiers`` promise.

Edge (request id, headers, errors)
├── /healthz  /readyz                                        open
├── /metrics                                                 its own token, or loopback
├── /v1/chat/completions  /v1/tokenize  /v1/models           key; OpenAI's shapes
├── /mistral/v1/…                                            key; Mistral's shapes, strictly
├── /v1/usage                                                key; its own
└── /admin/…                                                 key of an admin, a lead or finance
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from serve_app.accounting.office import Office
from serve_app.config import Config
from serve_app.gateway.admin.routes import admin_routes
from serve_app.gateway.auth import KeyCheck
from serve_app.gateway.body_room import BodyRoom
from serve_app.gateway.chat import Chat
from serve_app.gateway.edge import MISTRAL_PREFIX, Edge
from serve_app.gateway.error_body import http_error_response
from serve_app.gateway.fields import Dialect
from serve_app.gateway.metrics_route import metrics_routes
from serve_app.gateway.openapi import describe_chat
from serve_app.gateway.owners import Owners
from serve_app.gateway.routes import chat_routes, health_routes
from serve_app.gateway.tiers import Tiers
from serve_app.gateway.usage_routes import usage_routes
from serve_app.in_hand import InHand
from serve_app.telemetry import GatewayMetrics
from serve_app.tracing import Tracing
from shards.detokenizer import Vocabulary

# Serve has waited for the answers already when it ends a replica: this is for requests whose
# client is gone, and below the time that Serve gives a replica to end.
DRAIN_S = 10.0

# FastAPI's own would send exception texts, which may quote a prompt, wherever the environment says;
# ours (tracing.py) sends neither.
_NO_TELEMETRY: TelemetryConfig = {
    "auto_configure": False,
    "tracing": False,
    "metrics": False,
    "logs": False,
    "operation_spans": False,
}


def create_app(
    config: Config,
    tiers: Tiers,
    vocabulary: Vocabulary,
    office: Office,
    max_context_tokens: int,
    metrics: GatewayMetrics | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The application opens ``office`` when it starts and closes it once all is settled.

    ``max_context_tokens`` is what the decoder groups can hold, prompt and answer together.
    """
    patch_room = InHand(config.gateway.max_held_patch_bytes, "shown")
    chat = Chat(config, tiers, vocabulary, max_context_tokens, patch_room)
    owners = Owners(chat, office)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with office:
            yield
            await owners.drain(DRAIN_S)
        if tracing is not None:
            tracing.close()

    app = FastAPI(
        title="pixtral-serve",
        # The pages that show OpenAPI load scripts from elsewhere; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
        lifespan=lifespan,
    )
    keyed = [Depends(KeyCheck(office.directory, asks=config.gateway.auth))]
    app.include_router(health_routes(tiers, office))
    app.include_router(metrics_routes(office, config))
    app.include_router(chat_routes(chat, owners, office, Dialect.OPENAI, keyed))
    app.include_router(
        chat_routes(chat, owners, office, Dialect.MISTRAL, keyed), prefix=MISTRAL_PREFIX
    )
    app.include_router(usage_routes(office), dependencies=keyed)
    app.include_router(
        admin_routes(office, config.accounting, groups=tiers.groups, engines=tiers.computed),
        dependencies=keyed,
    )
    describe_chat(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(BodyRoom, max_bytes=config.gateway.max_held_body_bytes)
    app.add_middleware(Edge, untrained=config.model.untrained, metrics=metrics, tracing=tracing)
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_error_response(error, f"{request.method} {request.url.path[:100]}")
