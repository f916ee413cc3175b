"""What the model's routes answer, as /openapi.json tells it; ``*_answer.py`` build the bodies."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from serve_app.gateway.choice import Finish
from serve_app.gateway.refusals import ErrorObject
from serve_app.preprocess.sizing import Scaling

_Count = Annotated[int, Field(ge=0)]
_Usd = Annotated[
    str, Field(pattern=r"^[0-9]+(\.[0-9]{1,9})?$", description="exact", examples=["0.00012"])
]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TokenLogprob(_Answer):
    token: str
    token_id: _Count
    logprob: Annotated[float, Field(le=0)]
    bytes: list[Annotated[int, Field(ge=0, le=255)]]


class ChosenLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class Logprobs(_Answer):
    content: list[ChosenLogprob]
    refusal: None


class CalledFunction(_Answer):
    name: str
    arguments: Annotated[str, Field(description="JSON, as the model wrote it")]


class ToolCall(_Answer):
    index: _Count
    id: str
    type: Literal["function"]
    function: CalledFunction


class CalledFunctionDelta(_Answer):
    name: str | None = None
    arguments: Annotated[str, Field(description="more of the JSON")]


class ToolCallDelta(_Answer):
    """The first of a call has everything, the others continue the arguments."""

    index: _Count
    id: str | None = None
    type: Literal["function"] | None = None
    function: CalledFunctionDelta


class AnswerMessage(_Answer):
    """``refusal`` is of OpenAI's shape, ``prefix`` of Mistral's."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: list[ToolCall] | None = None
    refusal: None = None
    prefix: Literal[False] = False


class Choice(_Answer):
    index: _Count
    message: AnswerMessage
    finish_reason: Finish
    logprobs: Logprobs | None


class PictureShown(_Answer):
    """How a picture came and how it is seen, in pixels, in the order in which the prompt shows it.

    A document's page came as large as it is at its dots per inch. ``scaled_by``: the model's own
    largest side, ``detail: low``, or the operator's limit of tokens for one picture or for all.
    """

    param: str
    width: _Count
    height: _Count
    seen_width: _Count
    seen_height: _Count
    scaled_by: Scaling | None
    tokens: _Count
    frame: Annotated[int | None, Field(description="from 0, if frames were asked for")] = None
    page: Annotated[int | None, Field(description="from 1, of a document")] = None


class PictureCharged(PictureShown):
    cached_tokens: _Count


class PromptDetails(_Answer):
    """``pictures``: of a prompt that has any."""

    cached_tokens: _Count
    image_tokens: _Count
    text_tokens: _Count
    pictures: list[PictureCharged] | None = None


class Cost(_Answer):
    """What the ledger's lines of the request add up to."""

    currency: Literal["USD"]
    input: _Usd
    output: _Usd
    total: _Usd


class CompletionUsage(_Answer):
    """The prompt counts once, the answer over all choices."""

    prompt_tokens: _Count
    completion_tokens: _Count
    total_tokens: _Count
    prompt_tokens_details: PromptDetails
    cost: Cost


class Completion(_Answer):
    id: str
    object: Literal["chat.completion"]
    created: Annotated[int, Field(description="Unix time, s")]
    model: str
    choices: list[Choice]
    usage: CompletionUsage


class Delta(_Answer):
    role: Literal["assistant"] | None = None
    content: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(_Answer):
    index: _Count
    delta: Delta
    finish_reason: Finish | Literal["error"] | None
    logprobs: Logprobs | None


class CompletionChunk(_Answer):
    """``usage`` comes with the last one; ``error`` where the answer could not be completed."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: CompletionUsage | None = None
    error: ErrorObject | None = None


class Quote(_Answer):
    """``max_total`` is what would be held for the request."""

    currency: Literal["USD"]
    input: _Usd
    max_output: _Usd
    max_total: _Usd


class Tokenization(_Answer):
    object: Literal["tokenization"]
    model: str
    prompt_tokens: _Count
    text_tokens: _Count
    image_tokens: _Count
    pictures: list[PictureShown]
    max_completion_tokens: _Count
    max_context_tokens: _Count
    quote: Quote


class Capabilities(_Answer):
    completion_chat: bool
    function_calling: bool
    vision: bool
    completion_fim: bool
    fine_tuning: bool


class PerKind(_Answer):
    text: _Usd
    image: _Usd
    cached_text: _Usd
    cached_image: _Usd
    output: _Usd


class Pricing(_Answer):
    currency: Literal["USD"]
    price_version: int
    input_per_million_tokens: _Usd
    output_per_million_tokens: _Usd
    per_million_tokens: PerKind


class ModelCard(_Answer):
    """``untrained`` where the weights are made up: for trying the system out."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    name: str
    type: Literal["base"]
    aliases: list[str]
    capabilities: Capabilities
    max_context_length: _Count
    default_model_temperature: float | None
    deprecation: None
    pricing: Pricing
    untrained: Literal[True] = True


class ModelList(_Answer):
    object: Literal["list"]
    data: list[ModelCard]


class ReadinessAnswer(_Answer):
    ready: bool
    reasons: list[str]
