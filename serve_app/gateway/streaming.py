"""Answers as server-sent events. The encoder is ours so that we decide how a stream ends."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from serve_app.errors import api_error
from serve_app.gateway.generation import Generation
from serve_app.gateway.openai_answer import OpenAIAnswer
from serve_app.gateway.stack import stack_of

_logger = logging.getLogger(__name__)
_PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"


class EventStream(StreamingResponse):
    """A peeked generation on its way to the caller; closed however the response ends."""

    def __init__(self, generation: Generation, answer: OpenAIAnswer, ping_interval_s: float):
        super().__init__(
            events(generation, answer, ping_interval_s),
            media_type="text/event-stream",
            headers={"cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self._generation = generation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._generation.close()


async def events(
    generation: Generation, answer: OpenAIAnswer, ping_interval_s: float
) -> AsyncIterator[bytes]:
    """Chunks, comments while nothing comes, and either usage or one error chunk, then [DONE].

    A stream that just stopped would pass for a success in both clients.
    """
    unopened = set(generation.running)
    try:
        while generation.running:
            pieces = await generation.pieces(ping_interval_s)
            if pieces is None:
                yield _PING
                continue
            for number, piece in enumerate(pieces, start=1):
                if piece.silent:
                    continue
                last = number == len(pieces) and not generation.running
                yield _event(
                    answer.chunk(
                        piece,
                        opening=piece.choice in unopened,
                        last_usage=generation.usage if last else None,
                    )
                )
                unopened.discard(piece.choice)
    except Exception as error:
        _logger.error("request %s failed mid-stream: %s", answer.request_id, stack_of(error))
        yield _event(answer.failure_chunk(api_error(error), generation.running))
        yield _DONE
        return
    usage = answer.usage_chunk(generation.usage)
    if usage is not None:
        yield _event(usage)
    yield _DONE


def _event(data: Mapping[str, Any]) -> bytes:
    """ASCII only: no line separator of any alphabet can break the framing."""
    return b"data: " + json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"
