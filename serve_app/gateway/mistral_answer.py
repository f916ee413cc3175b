"""Answers in Mistral's shapes: as OpenAI's, but for ids, messages, finish reasons and usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serve_app.gateway.choice import Finish, Piece
from serve_app.gateway.openai_answer import OpenAIAnswer
from serve_app.gateway.usage import Usage


@dataclass(frozen=True, slots=True)
class MistralAnswer(OpenAIAnswer):
    @property
    def id(self) -> str:
        return self.request_id.replace("-", "")

    def chunk(self, piece: Piece, *, opening: bool, last_usage: Usage | None) -> dict[str, Any]:
        """Usage rides on the last chunk, asked for or not."""
        chunk = self._chunk([self._step(piece, opening=opening)])
        if last_usage is None:
            return chunk
        return {**chunk, "usage": last_usage.body(self.prices, self.pictures)}

    def usage_chunk(self, usage: Usage) -> dict[str, Any] | None:  # noqa: ARG002  (has ridden)
        return None

    def _message(self, choice: Piece) -> dict[str, Any]:
        calls = OpenAIAnswer._message(self, choice).get("tool_calls")
        return {"role": "assistant", "content": choice.text, "tool_calls": calls, "prefix": False}

    def _finish_reason(self, finish: Finish | None) -> str | None:
        return finish
