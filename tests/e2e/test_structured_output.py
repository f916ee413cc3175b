"""Answers that must conform, by the official clients, against the running system.

The model never saw such schemas, so whatever conforms does so because of the grammar. They leave no
room for strings without end.
"""

from __future__ import annotations

import json
from contextlib import suppress

import jsonschema
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.test_clients import (
    MISTRAL_MESSAGES,
    OPENAI_MESSAGES,
    mistral_client,
    openai_client,
)

__all__ = ["mistral_client", "openai_client"]

SCHEMA = {
    "type": "object",
    "properties": {
        "colour": {"enum": ["red", "blue"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "seen": {"type": "boolean"},
    },
    "required": ["colour", "count", "seen"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
PAINT, ERASE = (
    {"type": "function", "function": {"name": name, "parameters": SCHEMA, "strict": True}}
    for name in ("paint", "erase")
)
LIMIT = 600


class Shape(BaseModel):
    seen: bool
    corners: int


@pytest.mark.parametrize("seed", range(3))
def test_json_schema_binds_answers_about_pictures(openai_client, mistral_client, system, seed):
    """Several at a time in one batch, with different pictures of noise for thoughts."""
    asked = {"model": system.model, "max_tokens": LIMIT, "response_format": FORMAT}
    answer = openai_client.chat.completions.create(
        **asked, messages=OPENAI_MESSAGES, seed=seed, n=3
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        assert choice.message.content[0] == "{"
        jsonschema.validate(json.loads(choice.message.content), SCHEMA)
    answer = mistral_client.chat.complete(**asked, messages=MISTRAL_MESSAGES, random_seed=seed)
    jsonschema.validate(json.loads(answer.choices[0].message.content), SCHEMA)


def test_openai_s_parse_helper_reads_a_model(openai_client, system):
    answer = openai_client.chat.completions.parse(
        model=system.model, messages=OPENAI_MESSAGES, max_tokens=LIMIT, response_format=Shape
    )
    assert isinstance(answer.choices[0].message.parsed, Shape)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "erase"}}]
)
@pytest.mark.parametrize("parallel", [True, False])
def test_forced_calls_conform_and_stream_the_same(openai_client, system, choice, parallel):
    asked = {
        "model": system.model,
        "messages": OPENAI_MESSAGES,
        "tools": [PAINT, ERASE],
        "tool_choice": choice,
        "parallel_tool_calls": parallel,
        "max_tokens": LIMIT,
        "seed": 5,
    }
    [whole] = openai_client.chat.completions.create(**asked).choices
    calls = whole.message.tool_calls
    assert calls
    for call in calls[: 1 if whole.finish_reason == "tool_calls" else 0]:
        jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    if not parallel:
        assert len(calls) == 1
        assert whole.finish_reason == "tool_calls"
    if choice != "required":
        assert {call.function.name for call in calls} == {"erase"}
    kinds: list[str] = []
    with openai_client.chat.completions.stream(**asked) as stream:
        # The model never learned to end several calls: it may go on until the limit.
        with suppress(openai.LengthFinishReasonError):
            kinds.extend(event.type for event in stream)
        streamed = stream.current_completion_snapshot.choices[0]
    assert kinds.count("tool_calls.function.arguments.delta") > len(calls)
    assert [(call.id[:0], call.function.name, call.function.arguments)
            for call in streamed.message.tool_calls] == [
        ("", call.function.name, call.function.arguments) for call in calls
    ]  # fmt: skip


def test_mistral_s_client_is_given_whole_calls(mistral_client, system):
    asked = {
        "model": system.model,
        "messages": MISTRAL_MESSAGES,
        "tools": [PAINT],
        "tool_choice": "any",
        "parallel_tool_calls": False,
        "max_tokens": LIMIT,
        "random_seed": 5,
    }
    [call] = mistral_client.chat.complete(**asked).choices[0].message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), SCHEMA)
    steps = [event.data.choices[0] for event in mistral_client.chat.stream(**asked)]
    [streamed] = [part for step in steps for part in step.delta.tool_calls or ()]
    assert (streamed.function.name, streamed.function.arguments) == (
        "paint",
        call.function.arguments,
    )
    assert steps[-1].finish_reason == "tool_calls"


def test_what_cannot_be_promised_is_a_400(openai_client, system):
    for schema in ({"type": "string", "oneOf": []}, {"$ref": "#"}):
        with pytest.raises(openai.BadRequestError) as caught:
            openai_client.chat.completions.create(
                model=system.model,
                messages=OPENAI_MESSAGES,
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": schema},
                },
            )
        assert caught.value.param == "response_format.json_schema.schema"
