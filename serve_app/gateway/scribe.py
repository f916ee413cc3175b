"""How an answer is written down: as server-sent events while it comes, or as one body at its end.

The encoder of events is ours, so that we decide how a stream ends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from serve_app.errors import ApiError
from serve_app.gateway.choice import Piece, merged
from serve_app.gateway.openai_answer import OpenAIAnswer
from serve_app.gateway.transcript import Head
from serve_app.gateway.usage import Usage

EVENT_STREAM = "text/event-stream"
PING = b": ping\n\n"
_DONE = b"data: [DONE]\n\n"
_UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class Scribe(Protocol):
    streams: bool

    def head(self, usage: Usage, rates: Mapping[str, str]) -> Head:
        """``rates``: of whom the answer is made for (see ``transcript.py``)."""

    def step(self, pieces: Sequence[Piece]) -> bytes:
        """What can be shown while the answer goes on."""

    def finish(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        """The rest, ``pieces`` being the last."""

    def failure(self, error: ApiError, running: Sequence[int]) -> bytes:
        """The end of an answer that was shown in part."""


class EventScribe:
    """Chunks, then either usage or one error chunk, then [DONE].

    A stream that just stopped would pass for a success in both clients.
    """

    streams = True

    def __init__(self, answer: OpenAIAnswer, choices: int) -> None:
        self._answer = answer
        self._unopened = set(range(choices))

    def head(self, usage: Usage, rates: Mapping[str, str]) -> Head:
        del usage  # not known when a stream begins
        return Head(EVENT_STREAM, _UNBUFFERED, rates)

    def step(self, pieces: Sequence[Piece]) -> bytes:
        return b"".join(self._chunk(piece) for piece in pieces if not piece.silent)

    def finish(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        # Never silent, as it holds a finish.
        *others, last = pieces
        ending = self._answer.usage_chunk(usage)
        return b"".join(
            (
                self.step(others),
                self._chunk(last, usage),
                b"" if ending is None else _event(ending),
                _DONE,
            )
        )

    def failure(self, error: ApiError, running: Sequence[int]) -> bytes:
        return _event(self._answer.failure_chunk(error, running)) + _DONE

    def _chunk(self, piece: Piece, last_usage: Usage | None = None) -> bytes:
        opening = piece.choice in self._unopened
        self._unopened.discard(piece.choice)
        return _event(self._answer.chunk(piece, opening=opening, last_usage=last_usage))


class BodyScribe:
    """One JSON body; what it cost is also in its head."""

    streams = False

    def __init__(self, answer: OpenAIAnswer) -> None:
        self._answer = answer
        self._pieces: list[Piece] = []

    def head(self, usage: Usage, rates: Mapping[str, str]) -> Head:
        cost = {"x-request-cost-usd": usage.cost_usd(self._answer.prices)}
        return Head("application/json", cost, rates)

    def step(self, pieces: Sequence[Piece]) -> bytes:
        self._pieces += pieces
        return b""

    def finish(self, pieces: Sequence[Piece], usage: Usage) -> bytes:
        body = self._answer.completion(merged([*self._pieces, *pieces]), usage)
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()

    def failure(self, error: ApiError, running: Sequence[int]) -> bytes:  # noqa: ARG002
        return b""


def _event(data: Mapping[str, Any]) -> bytes:
    """ASCII only: no line separator of any alphabet can break the framing."""
    return b"data: " + json.dumps(data, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"
