"""A conversation as every tier sees it, whatever API body it came from. Standard library only.

Pictures are named by their index into the request's list of pictures, so that the same
conversation can travel without their bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """The ``index``-th picture of the request (0-based, in reading order)."""

    index: int


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the assistant made. ``id`` is exactly 9 alphanumerics; ``arguments`` is JSON text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. ``parameters`` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """One turn.

    ``prefix`` marks a last assistant message that the answer must continue (Mistral).
    ``tool_call_id`` and ``name`` belong to role ``tool``.
    """

    role: Role
    content: tuple[Text | Image, ...]
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Conversation:
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()

    @property
    def picture_count(self) -> int:
        return sum(isinstance(part, Image) for message in self.messages for part in message.content)

    def expanded(self, counts: Sequence[int]) -> Conversation:
        """The same with ``counts[i]`` pictures in a row in place of picture ``i``."""
        firsts = [0, *accumulate(counts)]

        def shown(part: Text | Image) -> tuple[Text | Image, ...]:
            if isinstance(part, Text):
                return (part,)
            first = firsts[part.index]
            return tuple(map(Image, range(first, first + counts[part.index])))

        messages = tuple(
            replace(message, content=tuple(new for part in message.content for new in shown(part)))
            for message in self.messages
        )
        return replace(self, messages=messages)
