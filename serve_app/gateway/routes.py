"""The routes of both dialects. Each reads top-down: read, check, work, answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serve_app.gateway.chat import Asked, Chat
from serve_app.gateway.choice import Piece, merged
from serve_app.gateway.disconnect import unless_gone
from serve_app.gateway.fields import Dialect
from serve_app.gateway.generation import Generation
from serve_app.gateway.mistral_answer import MistralAnswer
from serve_app.gateway.model_card import check_model
from serve_app.gateway.openai_answer import OpenAIAnswer
from serve_app.gateway.openapi import CHAT_REQUEST
from serve_app.gateway.streaming import EventStream
from serve_app.gateway.tiers import Tiers
from serve_app.gateway.validation import parse_chat, read_body

NOT_READY_RETRY_S = 2


def chat_routes(chat: Chat, card: Mapping[str, Any], dialect: Dialect) -> APIRouter:
    """Chat completions, tokenisation and models for one dialect; ``card`` is the served model's."""
    router = APIRouter(tags=[dialect.value])

    @router.post("/v1/chat/completions", openapi_extra=CHAT_REQUEST)
    async def complete(request: Request) -> Response:
        """Answer a conversation with pictures, whole or as server-sent events."""
        asked = await _asked(request)
        return await unless_gone(request, _answer(chat, asked, dialect))

    @router.post("/v1/tokenize", openapi_extra=CHAT_REQUEST)
    async def tokenize(request: Request) -> dict[str, object]:
        """Exact token counts and the most it can cost; nothing is generated."""
        asked = await _asked(request)
        return chat.quote(asked, await unless_gone(request, chat.prompt(asked)))

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The served model."""
        return {"object": "list", "data": [card]}

    @router.get("/v1/models/{model_id:path}")
    async def model(model_id: str) -> Mapping[str, Any]:
        """The served model by its name or an alias."""
        check_model(model_id, chat.config.model)
        return card

    async def _asked(request: Request) -> Asked:
        body = await read_body(request, chat.config.gateway.max_body_bytes)
        return chat.check(request.state.request_id, parse_chat(body, dialect))

    return router


def health_routes(tiers: Tiers) -> APIRouter:
    """For load balancers; no key needed."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> Response:
        """Every group that takes traffic has generated a token of late; 503 with reasons if not."""
        readiness = await tiers.readiness()
        body = {"ready": readiness.ready, "reasons": readiness.reasons}
        if readiness.ready:
            return JSONResponse(body)
        return JSONResponse(body, 503, headers={"retry-after": str(NOT_READY_RETRY_S)})

    return router


async def _answer(chat: Chat, asked: Asked, dialect: Dialect) -> Response:
    prompt = await chat.prompt(asked)
    generation = await chat.generation(asked, prompt)
    answer = _answer_shape(chat, asked, dialect)
    if asked.body.stream:
        return EventStream(generation, answer, chat.config.gateway.ping_interval_s)
    try:
        choices = await _collected(generation)
    finally:
        await generation.close()
    usage = generation.usage
    return JSONResponse(
        answer.completion(choices, usage),
        headers={"x-request-cost-usd": usage.cost_usd(chat.listed_price.price)},
    )


async def _collected(generation: Generation) -> list[Piece]:
    """One piece per choice, each the whole of it."""
    pieces: list[Piece] = []
    while generation.running:
        pieces += await generation.pieces() or ()
    return merged(pieces)


def _answer_shape(chat: Chat, asked: Asked, dialect: Dialect) -> OpenAIAnswer:
    body = asked.body
    shape = MistralAnswer if dialect is Dialect.MISTRAL else OpenAIAnswer
    return shape(
        request_id=asked.request_id,
        created=int(time.time()),
        model=chat.config.model.name,
        price=chat.listed_price.price,
        vocabulary=chat.vocabulary,
        logprobs=body.logprobs,
        include_usage=bool(body.stream_options and body.stream_options.include_usage),
    )
