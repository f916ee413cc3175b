"""The REST application over whatever keeps the ``Tiers`` promise.

Edge (request id, headers, errors)
├── /healthz  /readyz                                        open
├── /v1/chat/completions  /v1/tokenize  /v1/models           key; OpenAI's shapes
└── /mistral/v1/…                                            key; Mistral's shapes, strictly
"""

from __future__ import annotations

import time

from fastapi import Depends, FastAPI, Request, Response
from fastapi.telemetry import TelemetryConfig
from starlette.exceptions import HTTPException

from serve_app.accounting.prices import listed_price
from serve_app.config import Config
from serve_app.gateway.auth import KeyCheck
from serve_app.gateway.chat import Chat
from serve_app.gateway.edge import MISTRAL_PREFIX, Edge
from serve_app.gateway.error_body import http_error_response
from serve_app.gateway.fields import Dialect
from serve_app.gateway.model_card import model_card
from serve_app.gateway.openapi import describe_chat_body
from serve_app.gateway.routes import chat_routes, health_routes
from serve_app.gateway.tiers import Tiers
from shards.detokenizer import Vocabulary

# FastAPI's own would send exception texts, which may quote a prompt, wherever the environment says.
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
    api_key: str | None,
    max_context_tokens: int,
) -> FastAPI:
    """``api_key`` None leaves the API open, which the config allows on loopback only.

    ``max_context_tokens`` is what the decoder groups can hold, prompt and answer together.
    """
    app = FastAPI(
        title="pixtral-serve",
        # The pages that show OpenAPI load scripts from elsewhere; /openapi.json stays.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    price = listed_price(config.model)
    chat = Chat(config, tiers, vocabulary, max_context_tokens, price)
    card = model_card(config.model, price, int(time.time()), max_context_tokens)
    keyed = [Depends(KeyCheck(api_key))]
    app.include_router(health_routes(tiers))
    app.include_router(chat_routes(chat, card, Dialect.OPENAI), dependencies=keyed)
    app.include_router(
        chat_routes(chat, card, Dialect.MISTRAL), prefix=MISTRAL_PREFIX, dependencies=keyed
    )
    describe_chat_body(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Edge, untrained=config.model.untrained)
    return app


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return http_error_response(error, f"{request.method} {request.url.path[:100]}")
