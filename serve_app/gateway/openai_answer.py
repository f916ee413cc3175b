"""Answers in OpenAI's shapes: ``chat.completion`` and ``chat.completion.chunk``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serve_app.accounting.prices import PriceSheet
from serve_app.errors import ApiError
from serve_app.gateway.choice import Finish, Piece
from serve_app.gateway.error_body import error_object
from serve_app.gateway.usage import Usage
from serve_app.messages import Shown
from shards.call_reader import CallPart
from shards.detokenizer import Vocabulary
from shards.request import TokenLogprob

# JSON has no infinity; OpenAI writes this for a token that cannot come.
_LEAST_LOGPROB = -9999.0


@dataclass(frozen=True, slots=True)
class OpenAIAnswer:
    """Builds the bodies of one answer.

    Attributes:
        created: Unix time, s.
        pictures: of the prompt, in its order.
        include_usage: the stream ends with a chunk of its own for usage.
    """

    request_id: str
    created: int
    model: str
    prices: PriceSheet
    vocabulary: Vocabulary
    pictures: tuple[Shown, ...] = ()
    logprobs: bool = False
    include_usage: bool = False

    @property
    def id(self) -> str:
        return f"chatcmpl-{self.request_id.replace('-', '')}"

    def completion(self, choices: Sequence[Piece], usage: Usage) -> dict[str, Any]:
        """The whole answer."""
        return {
            **self._envelope("chat.completion"),
            "choices": [
                {
                    "index": choice.choice,
                    "message": self._message(choice),
                    "finish_reason": self._finish_reason(choice.finish),
                    **self._logprobs(choice),
                }
                for choice in choices
            ],
            "usage": usage.body(self.prices, self.pictures),
        }

    def chunk(self, piece: Piece, *, opening: bool, last_usage: Usage | None) -> dict[str, Any]:
        """One step of one choice; ``last_usage`` is given with the piece that ends the answer."""
        del last_usage  # OpenAI's usage has a chunk of its own
        return self._chunk([self._step(piece, opening=opening)])

    def usage_chunk(self, usage: Usage) -> dict[str, Any] | None:
        """What follows the last piece."""
        if not self.include_usage:
            return None
        return {**self._chunk([]), "usage": usage.body(self.prices, self.pictures)}

    def failure_chunk(self, error: ApiError, running: Sequence[int]) -> dict[str, Any]:
        """The end of an interrupted stream: openai's client raises ``error``, mistralai's sees the
        finish reason."""
        choices = [
            {"index": choice, "delta": {"content": ""}, "finish_reason": "error", "logprobs": None}
            for choice in running
        ]
        return {**self._chunk(choices), "error": error_object(error)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        chunk = {**self._envelope("chat.completion.chunk"), "choices": choices}
        return {**chunk, "usage": None} if self.include_usage else chunk

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _message(self, choice: Piece) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": choice.text, "refusal": None}
        if choice.tool_calls:
            message |= {
                "content": choice.text or None,
                "tool_calls": [_call_delta(call) for call in choice.tool_calls],
            }
        return message

    def _step(self, piece: Piece, *, opening: bool) -> dict[str, Any]:
        delta: dict[str, Any] = {"role": "assistant", "content": ""} if opening else {}
        if piece.text or not (opening or piece.finish or piece.tool_calls):
            delta["content"] = piece.text
        elif opening and piece.tool_calls:
            delta["content"] = None
        if piece.tool_calls:
            delta["tool_calls"] = [_call_delta(part) for part in piece.tool_calls]
        return {
            "index": piece.choice,
            "delta": delta,
            "finish_reason": self._finish_reason(piece.finish),
            **self._logprobs(piece),
        }

    def _finish_reason(self, finish: Finish | None) -> str | None:
        """Always present, null included: mistralai's client insists."""
        return Finish.LENGTH if finish is Finish.MODEL_LENGTH else finish

    def _logprobs(self, piece: Piece) -> dict[str, Any]:
        if not self.logprobs:
            return {"logprobs": None}
        content = [self._logprob_entry(entry) for entry in piece.logprobs]
        return {"logprobs": {"content": content, "refusal": None}}

    def _logprob_entry(self, entry: TokenLogprob) -> dict[str, Any]:
        top = [self._token(token_id, logprob) for token_id, logprob in entry.top]
        return {**self._token(entry.token_id, entry.logprob), "top_logprobs": top}

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        piece = self.vocabulary.pieces[token_id]
        return {
            "token": piece.decode("utf-8", "replace"),
            "token_id": token_id,
            "logprob": max(logprob, _LEAST_LOGPROB),
            "bytes": list(piece),
        }


def _call_delta(part: CallPart) -> dict[str, Any]:
    """A whole call, or more of one: clients put together what has the same index."""
    if not part.id:
        return {"index": part.index, "function": {"arguments": part.arguments}}
    return {
        "index": part.index,
        "id": part.id,
        "type": "function",
        "function": {"name": part.name, "arguments": part.arguments},
    }
