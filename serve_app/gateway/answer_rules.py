"""What the body asks the answer to conform to: JSON, tool calls, or both.

Schemas are checked here, before any work is spent, and compiled by the group that answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from serve_app.errors import InvalidRequest
from serve_app.gateway.chat_body import ChatBody, JsonSchemaFormat, ToolBody
from shards.json_schema import BYTES_LIMIT, checked_arguments, checked_schema
from shards.request import CallableTool, CallRules, GrammarSpec, TextRules

SCHEMA_PARAM = "response_format.json_schema.schema"
# Every choice begins with a copy of where the grammar stands after it: 0.1 ms per KiB, between two
# steps of the engine.
PREFIX_LIMIT = 64 * 1024


def grammar_of(body: ChatBody, prefix: str) -> GrammarSpec | None:
    """None where the answer is free.

    Args:
        prefix: text that the answer continues.

    Raises:
        InvalidRequest, RequestError: naming the field.
    """
    text, calls = _text(body), _calls(body)
    if text is None and calls is None:
        return None
    because = "tools" if text is None else "response_format"
    if body.ignore_eos:
        raise InvalidRequest(f"cannot be combined with {because}", param="ignore_eos")
    if body.min_tokens:
        raise InvalidRequest(f"cannot be combined with {because}", param="min_tokens")
    if text is not None and len(prefix) > PREFIX_LIMIT:
        raise InvalidRequest(
            f"the text to be continued is longer than {PREFIX_LIMIT} characters, the most together"
            " with response_format",
            param="messages",
        )
    return GrammarSpec(text, calls, prefix)


def _text(body: ChatBody) -> TextRules | None:
    match body.response_format:
        case None:
            return None
        case JsonSchemaFormat(json_schema=asked):
            if asked.schema_ is None:
                return TextRules()
            source, closed = _source(asked.schema_), bool(asked.strict)
            checked_schema(source, SCHEMA_PARAM, closed=closed)
            return TextRules(source, closed, SCHEMA_PARAM)
        case form:
            return TextRules() if form.type == "json_object" else None


def _calls(body: ChatBody) -> CallRules | None:
    choice = body.tool_choice
    forced = choice.type in ("any", "required", "function")
    if forced and not body.tools:
        raise InvalidRequest("needs tools to choose from", param="tool_choice")
    if choice.type == "none" or not body.tools:
        return None
    tools = _callable_tools(body.tools)
    if choice.function is not None:
        name = choice.function.name
        tools = tuple(tool for tool in tools if tool.name == name)
        if not tools:
            raise InvalidRequest("is none of the tools", param="tool_choice.function.name")
    return CallRules(tools, required=forced, parallel=body.parallel_tool_calls)


def _callable_tools(bodies: list[ToolBody]) -> tuple[CallableTool, ...]:
    tools: dict[str, CallableTool] = {}
    size = 0
    for index, body in enumerate(bodies):
        function, param = body.function, f"tools[{index}].function"
        if function.name in tools:
            raise InvalidRequest("is the name of an earlier tool too", param=f"{param}.name")
        schema = None
        if function.strict and function.parameters:
            schema = _source(function.parameters)
            size += len(schema)
            if size > BYTES_LIMIT:
                raise InvalidRequest(
                    f"the schemas of strict tools exceed {BYTES_LIMIT} bytes together",
                    param=f"{param}.parameters",
                )
            checked_arguments(schema, f"{param}.parameters")
        tools[function.name] = CallableTool(function.name, schema, f"{param}.parameters")
    return tuple(tools.values())


def _source(schema: Mapping[str, Any]) -> str:
    return json.dumps(schema, separators=(",", ":"))
