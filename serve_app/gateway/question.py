"""From the messages of a body to the conversation that every tier understands, and its pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.errors import InvalidRequest
from serve_app.gateway.chat_body import (
    AssistantMessage,
    ChatBody,
    SystemMessage,
    ToolBody,
    ToolCallBody,
    ToolMessage,
)
from serve_app.gateway.chat_body import Message as MessageBody
from serve_app.gateway.content_parts import DocumentPart, ImagePart, TextPart
from serve_app.gateway.pictures import PictureRules, source_of
from serve_app.messages import PictureSource
from shards.conversation import Conversation, Image, Message, Text, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation and its pictures."""

    conversation: Conversation
    pictures: tuple[PictureSource, ...]

    @property
    def prefix(self) -> str:
        """Text of a last assistant message that the answer continues."""
        last = self.conversation.messages[-1]
        if not last.prefix:
            return ""
        return "".join(part.text for part in last.content if isinstance(part, Text))


def question_of(body: ChatBody, max_pictures: int, rules: PictureRules) -> Question:
    """Raises InvalidRequest: too many pictures, a bad picture, or a message that says nothing."""
    seen = _seen_parts(body.messages)
    if len(seen) > max_pictures:
        raise InvalidRequest(
            f"a request may hold {max_pictures} pictures, not {len(seen)}",
            param="messages",
            code="too_many_pictures",
        )
    pictures = tuple(source_of(part, place, rules) for place, part in seen)
    messages, index = [], 0
    for number, message in enumerate(body.messages):
        messages.append(_message(message, f"messages[{number}]", index))
        index += sum(not isinstance(part, TextPart) for part in message.content or ())
    tools = () if body.tool_choice.type == "none" else tuple(map(_tool, body.tools))
    return Question(Conversation(tuple(messages), tools), pictures)


def _seen_parts(messages: Sequence[MessageBody]) -> list[tuple[str, ImagePart | DocumentPart]]:
    """(place, part) of every picture and document, in reading order."""
    return [
        (f"messages[{number}].content[{place}]", part)
        for number, message in enumerate(messages)
        for place, part in enumerate(message.content or ())
        if not isinstance(part, TextPart)
    ]


def _message(message: MessageBody, param: str, next_picture: int) -> Message:
    parts: list[Text | Image] = []
    for part in message.content or ():
        if isinstance(part, TextPart):
            parts.append(Text(part.text))
        else:
            parts.append(Image(next_picture))
            next_picture += 1
    content = tuple(parts)
    match message:
        case SystemMessage():
            return Message("system", content)
        case AssistantMessage(tool_calls=calls, prefix=prefix):
            if message.content is None and not calls:
                raise InvalidRequest("needs content or tool_calls", param=param)
            return Message(
                "assistant", content, tuple(map(_tool_call, calls or ())), prefix=bool(prefix)
            )
        case ToolMessage(tool_call_id=call_id, name=name):
            return Message("tool", content, tool_call_id=call_id, name=name)
        case _:
            return Message("user", content)


def _tool_call(call: ToolCallBody) -> ToolCall:
    arguments = call.function.arguments
    return ToolCall(
        call.id,
        call.function.name,
        arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
    )


def _tool(tool: ToolBody) -> Tool:
    function = tool.function
    return Tool(
        function.name,
        function.description or "",
        function.parameters or {},
        strict=bool(function.strict),
    )
