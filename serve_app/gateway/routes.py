"""The routes of both dialects. Each reads top-down: who, what, may they, work, answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends
from fastapi.responses import JSONResponse

from serve_app.accounting.office import Office
from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.roles import Endpoint, Permission
from serve_app.errors import (
    BudgetExhausted,
    GenerationFailed,
    InFlight,
    InvalidRequest,
    LedgerError,
    ModelNotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    ReusedKey,
)
from serve_app.gateway.answer_schemas import ModelCard, ModelList, ReadinessAnswer, Tokenization
from serve_app.gateway.auth import principal_of
from serve_app.gateway.chat import Asked, Chat
from serve_app.gateway.disconnect import unless_gone
from serve_app.gateway.fields import Dialect
from serve_app.gateway.idempotency import idempotency_key
from serve_app.gateway.model_card import check_model, model_card
from serve_app.gateway.openapi import CHAT_REQUEST, COMPLETION, TOKENIZE_REQUEST
from serve_app.gateway.owners import Owners
from serve_app.gateway.refusals import refusals
from serve_app.gateway.relay import Relay
from serve_app.gateway.tiers import Tiers
from serve_app.gateway.validation import MalformedBody, parse_chat, read_body
from serve_app.reasons import DATABASE

NOT_READY_RETRY_S = 2
_PROMPT_REFUSALS = (
    InvalidRequest,
    MalformedBody,
    ModelNotFound,
    PayloadTooLarge,
    Overloaded,
)
_CHAT_REFUSALS = (
    *_PROMPT_REFUSALS,
    InFlight,
    ReusedKey,
    RateLimited,
    BudgetExhausted,
    GenerationFailed,
    LedgerError,
)
_READINESS: dict[str, Any] = {"model": ReadinessAnswer}


def chat_routes(
    chat: Chat, owners: Owners, office: Office, dialect: Dialect, keyed: Sequence[Depends]
) -> APIRouter:
    """Chat completions, tokenisation and models for one dialect, to whom ``keyed`` lets in."""
    router = APIRouter(tags=[dialect.value], dependencies=keyed)
    model, gateway = chat.config.model, chat.config.gateway
    created = int(time.time())
    refuse = partial(refusals, dialect=dialect)

    @router.post(
        "/v1/chat/completions",
        openapi_extra=CHAT_REQUEST,
        responses={200: COMPLETION, **refuse(*_CHAT_REFUSALS)},
    )
    async def complete(request: Request) -> Response:
        """Answer a conversation with pictures, whole or as server-sent events."""
        asked = await _asked(request, Endpoint.CHAT, repeatable=True)
        return Relay(owners, asked, gateway.ping_interval_s)

    @router.post(
        "/v1/tokenize",
        openapi_extra=TOKENIZE_REQUEST,
        responses={200: {"model": Tokenization}, **refuse(*_PROMPT_REFUSALS)},
    )
    async def tokenize(request: Request) -> dict[str, object]:
        """Exact token counts and the most it can cost; nothing is generated."""
        asked = await _asked(request, Endpoint.TOKENIZE, repeatable=False)
        prompt = await unless_gone(request.receive, chat.prompt(asked))
        return chat.quote(asked, prompt, _prices())

    @router.get("/v1/models", responses={200: {"model": ModelList}, **refuse()})
    async def models(request: Request) -> dict[str, Any]:
        """The served model."""
        principal_of(request).check_endpoint(Endpoint.MODELS)
        return {"object": "list", "data": [_card()]}

    @router.get(
        "/v1/models/{model_id:path}",
        responses={200: {"model": ModelCard}, **refuse(ModelNotFound)},
    )
    async def model_by_name(request: Request, model_id: str) -> dict[str, Any]:
        """The served model by its name or an alias."""
        principal_of(request).check_endpoint(Endpoint.MODELS)
        check_model(model_id, model)
        return _card()

    async def _asked(request: Request, endpoint: Endpoint, *, repeatable: bool) -> Asked:
        principal = principal_of(request)
        principal.check(Permission.CALL)
        principal.check_endpoint(endpoint)
        key = idempotency_key(request) if repeatable else None
        body = await read_body(request, gateway.max_body_bytes)
        parsed = parse_chat(body, dialect)
        asked = chat.check(request.state.request_id, principal, dialect, parsed)
        if key is None:
            return asked
        team, path = principal.payer.team_id, request.url.path
        return replace(asked, repeat=office.replays.repeat(team, key, path, body))

    def _card() -> dict[str, Any]:
        return model_card(model, _prices(), created, chat.max_context_tokens)

    def _prices() -> PriceSheet:
        return office.prices.current(model.name)

    return router


def health_routes(tiers: Tiers, office: Office) -> APIRouter:
    """For load balancers; no key needed."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={200: _READINESS, 503: _READINESS})
    async def readyz() -> Response:
        """Every group that takes traffic has generated a token of late, the other tiers and the
        accounts' database answer; 503 with reasons if not."""
        readiness, keeps_accounts = await asyncio.gather(tiers.readiness(), office.reachable())
        reasons = (*(() if keeps_accounts else (DATABASE,)), *readiness.reasons)
        body = {"ready": not reasons, "reasons": reasons}
        if not reasons:
            return JSONResponse(body)
        return JSONResponse(body, 503, headers={"retry-after": str(NOT_READY_RETRY_S)})

    return router
