"""The chat request body: the honoured fields of ``fields.py``, both clients' spellings.

Shapes are made one while reading: content becomes a list of parts, a picture's URL an object,
``stop`` a list. Fields typed ``None`` are those that clients send back empty from our answers, or
that have a meaning we cannot give them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from serve_app.gateway.content_parts import Body, TextPart, UserPart

STOPS_LIMIT = 16
STOP_CHARS_LIMIT = 256
TOOLS_LIMIT = 128
_NAME = r"^[a-zA-Z0-9_-]{1,64}$"
_CHOICES = ("auto", "none", "any", "required")


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


def _as_choice_object(tool_choice: Any) -> Any:
    if isinstance(tool_choice, str) and tool_choice in _CHOICES:
        return {"type": tool_choice}
    named = isinstance(tool_choice, dict) and tool_choice.get("function") is not None
    if named and tool_choice.get("type", "function") == "function":
        return {**tool_choice, "type": "function"}
    raise PydanticCustomError(
        "unsupported_value",
        "must be 'auto', 'none', 'any', 'required' or {type: 'function', function: {name}}",
    )


def _not_obfuscated(include_obfuscation: Any) -> Any:
    if include_obfuscation is True:
        raise PydanticCustomError("unsupported_value", "cannot be true: chunks are not padded")
    return include_obfuscation


Parts = Annotated[
    list[UserPart],
    Field(min_length=1),
    BeforeValidator(_as_parts, json_schema_input_type=str | list[UserPart]),
]
Texts = Annotated[
    list[TextPart], BeforeValidator(_as_parts, json_schema_input_type=str | list[TextPart])
]


class FunctionCall(Body):
    name: str
    arguments: str | dict[str, Any]


class ToolCallBody(Body):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall
    index: int | None = None


class SystemMessage(Body):
    role: Literal["system", "developer"]
    content: Texts
    name: None = None


class UserMessage(Body):
    role: Literal["user"]
    content: Parts
    name: None = None


class AssistantMessage(Body):
    role: Literal["assistant"]
    content: Texts | None = None
    tool_calls: list[ToolCallBody] | None = None
    prefix: bool | None = None
    name: None = None
    refusal: None = None
    audio: None = None
    annotations: None = None
    function_call: None = None


class ToolMessage(Body):
    role: Literal["tool"]
    content: Texts
    tool_call_id: str
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class FunctionBody(Body):
    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = Field(
        None, description="arguments conform to `parameters`; else they are any JSON object"
    )


class ToolBody(Body):
    type: Literal["function"]
    function: FunctionBody


class ChosenFunction(Body):
    name: str


class NamedTool(Body):
    type: Literal["function"] = "function"
    function: ChosenFunction


class ToolChoice(Body):
    """``function`` is there for a named one."""

    type: Literal["auto", "none", "any", "required", "function"] = "auto"
    function: ChosenFunction | None = None


class TextFormat(Body):
    type: Literal["text"]
    json_schema: None = None


class JsonObjectFormat(Body):
    type: Literal["json_object"]
    json_schema: None = None


class NamedSchema(Body):
    name: str = Field(pattern=_NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="any JSON object conforms if there is none"
    )
    strict: bool | None = Field(
        None, description="objects have no properties but those named, unless they say so"
    )


class JsonSchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")
]


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: Annotated[bool | None, BeforeValidator(_not_obfuscated)] = None


StopString = Annotated[str, Field(min_length=1, max_length=STOP_CHARS_LIMIT)]


class ChatBody(Body):
    model: str
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    stop: Annotated[
        list[StopString],
        Field(max_length=STOPS_LIMIT),
        BeforeValidator(_as_list, json_schema_input_type=str | list[StopString]),
    ] = Field(default_factory=list)
    seed: int | None = None
    random_seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None
    n: int = 1
    tools: list[ToolBody] = Field(default_factory=list, max_length=TOOLS_LIMIT)
    tool_choice: Annotated[
        ToolChoice,
        BeforeValidator(
            _as_choice_object,
            json_schema_input_type=Literal["auto", "none", "any", "required"] | NamedTool,
        ),
    ] = ToolChoice()
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    top_k: int | None = None
    min_tokens: int | None = None
    min_p: float | None = None
    ignore_eos: bool = False
