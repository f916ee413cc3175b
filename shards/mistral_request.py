"""A conversation as mistral-common's own request, and its refusals in our words.

A picture travels as the text ``picture:INDEX:WIDTHxHEIGHT``, for tokens need no pixels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise

from mistral_common.exceptions import (
    InvalidFunctionCallException,
    InvalidMessageStructureException,
    InvalidToolException,
    InvalidToolMessageException,
    InvalidToolSchemaException,
)
from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct.chunk import ContentChunk, ImageURLChunk, TextChunk
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall
from mistral_common.protocol.instruct.tool_calls import Tool as MistralTool
from mistral_common.protocol.instruct.tool_calls import ToolCall as MistralToolCall

from shards.conversation import Conversation, Image, Message, Text, Tool
from shards.errors import RequestError
from shards.grid import Size
from shards.tool_calls import is_tool_call_id, tool_call_id

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NAME_RULE = "must be 1 to 64 letters, digits, underscores or dashes"
_UNPAIRED = "text must be valid Unicode; it holds half of a surrogate pair"
_MAY_FOLLOW = {
    "system": ("user", "assistant", "system"),
    "user": ("assistant", "system", "user"),
    "assistant": ("assistant", "user", "tool"),
    "tool": ("assistant", "tool", "user"),
}


def mistral_request(
    conversation: Conversation, sizes: Sequence[Size]
) -> ChatCompletionRequest[mistral.ChatMessage]:
    """The request that mistral-common validates and tokenises.

    Tool-call ids that the model cannot be told (OpenAI's ``call_…``) become 9 letters or digits
    that follow from them, the same in the call and in its result.

    Raises:
        RequestError: it cannot even be written down (message named).
    """
    return ChatCompletionRequest(
        model="pixtral",
        messages=[
            _message(index, message, sizes) for index, message in enumerate(conversation.messages)
        ],
        tools=[_tool(index, tool) for index, tool in enumerate(conversation.tools)] or None,
    )


def picture_of(url: str) -> tuple[int, Size]:
    """Index and size of the picture that ``mistral_request`` wrote down as ``url``."""
    _, index, size = url.split(":")
    width, height = size.split("x")
    return int(index), (int(width), int(height))


def refusal(conversation: Conversation, error: Exception) -> RequestError:
    """What the caller is told of mistral-common's ``error``: field, place and rule."""
    match error:
        case InvalidToolException():
            return RequestError("tools", _tool_fault(conversation.tools))
        case InvalidToolSchemaException():
            return RequestError("tools", "parameters must be a valid JSON schema (draft 7)")
        case InvalidMessageStructureException():
            fault = _structure_fault(conversation.messages)
        case InvalidFunctionCallException():
            fault = f"the name of a function that was called {_NAME_RULE}"
        case InvalidToolMessageException():
            fault = f"the name in a tool message {_NAME_RULE}"
        case RecursionError():
            fault = "tool arguments or results are nested too deeply"
        case _:
            fault = _content_fault(conversation.messages)
    return RequestError("messages", fault)


def _message(index: int, message: Message, sizes: Sequence[Size]) -> mistral.ChatMessage:
    if message.role != "user" and any(isinstance(part, Image) for part in message.content):
        raise RequestError("messages", f"messages[{index}]: only user messages may hold pictures")
    if message.prefix and message.role != "assistant":
        raise RequestError("messages", f"messages[{index}]: only an assistant's may be a prefix")
    if not _well_formed(message):
        raise RequestError("messages", f"messages[{index}]: {_UNPAIRED}")
    match message.role:
        case "system":
            return mistral.SystemMessage(content=_content(message, sizes))
        case "user":
            return mistral.UserMessage(content=_content(message, sizes))
        case "assistant":
            return mistral.AssistantMessage(
                content=_content(message, sizes),
                tool_calls=[
                    MistralToolCall(
                        id=_model_id(call.id),
                        function=FunctionCall(name=call.name, arguments=call.arguments),
                    )
                    for call in message.tool_calls
                ]
                or None,
                prefix=message.prefix,
            )
        case "tool":
            if not message.tool_call_id:
                raise RequestError("messages", f"messages[{index}]: tool_call_id is missing")
            return mistral.ToolMessage(
                content=_content(message, sizes),
                tool_call_id=_model_id(message.tool_call_id),
                name=message.name,
            )


def _well_formed(message: Message) -> bool:
    texts = [part.text for part in message.content if isinstance(part, Text)]
    texts += [text for call in message.tool_calls for text in (call.id, call.name, call.arguments)]
    texts += [message.tool_call_id or "", message.name or ""]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _content(message: Message, sizes: Sequence[Size]) -> str | list[ContentChunk]:
    match message.content:
        case ():
            return ""
        case (Text(text),):
            return text
        case parts:
            return [_chunk(part, sizes) for part in parts]


def _chunk(part: Text | Image, sizes: Sequence[Size]) -> ContentChunk:
    if isinstance(part, Text):
        return TextChunk(text=part.text)
    width, height = sizes[part.index]
    return ImageURLChunk(image_url=f"picture:{part.index}:{width}x{height}")


def _tool(index: int, tool: Tool) -> MistralTool:
    try:
        json.dumps(
            [tool.name, tool.description, dict(tool.parameters)], ensure_ascii=False
        ).encode()
    except UnicodeEncodeError as error:
        raise RequestError("tools", f"tools[{index}]: {_UNPAIRED}") from error
    except RecursionError as error:
        raise RequestError("tools", f"tools[{index}]: nested too deeply") from error
    return MistralTool(
        function=Function(
            name=tool.name,
            description=tool.description,
            parameters=dict(tool.parameters),
        )
    )


def _model_id(given: str) -> str:
    return given if is_tool_call_id(given) else tool_call_id(given)


def _tool_fault(tools: Sequence[Tool]) -> str:
    for index, tool in enumerate(tools):
        if not _NAME.fullmatch(tool.name):
            return f"tools[{index}]: the name {tool.name[:80]!r} {_NAME_RULE}"
    return f"a name {_NAME_RULE}"


def _structure_fault(messages: Sequence[Message]) -> str:
    if not messages:
        return "at least one message is needed"
    for index, (before, after) in enumerate(pairwise(messages), start=1):
        if after.role not in _MAY_FOLLOW[before.role]:
            return f"messages[{index}]: role {after.role!r} cannot follow {before.role!r}"
    last = messages[-1]
    if last.role == "assistant" and not last.prefix:
        return (
            f"messages[{len(messages) - 1}]: the last message must be the user's or a tool's,"
            " or an assistant's marked as prefix"
        )
    if len(messages) == 1 and last.role != "system":
        return "messages[0]: a conversation must start with a user or system message"
    return (
        "every tool call of an assistant message needs exactly one tool message before the"
        " assistant speaks again"
    )


def _content_fault(messages: Sequence[Message]) -> str:
    for index, message in enumerate(messages):
        if message.role == "assistant":
            place = f"messages[{index}]: an assistant message"
            written = any(isinstance(part, Text) and part.text for part in message.content)
            if not written and not message.tool_calls:
                return f"{place} needs content or tool_calls"
            if written and message.tool_calls:
                return f"{place} holds content or tool_calls, not both, with this model"
            if message.prefix and index < len(messages) - 1:
                return f"{place} marked as prefix must be the last one"
    for index, (before, after) in enumerate(pairwise(messages), start=1):
        if before.role == after.role == "assistant" and (before.tool_calls or after.tool_calls):
            return (
                f"messages[{index}]: assistant messages in a row are one, and with this model it"
                " holds content or tool_calls, not both"
            )
    return "the conversation cannot be put in this model's prompt format"
