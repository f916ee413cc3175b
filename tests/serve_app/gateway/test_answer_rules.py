"""From a body's response_format, tools and tool_choice to the grammar that the engine is given."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.errors import InvalidRequest, api_error
from serve_app.gateway.answer_rules import PREFIX_LIMIT, SCHEMA_PARAM, grammar_of
from serve_app.gateway.fields import Dialect
from serve_app.gateway.validation import parse_chat
from shards.errors import RequestError
from shards.request import CallableTool, CallRules, GrammarSpec, TextRules
from tests.serve_app.gateway.client_cases import QUESTION, WEATHER
from tests.serve_app.gateway.conftest import Gateway

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
F = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
G = {"type": "function", "function": {"name": "g", "parameters": SCHEMA, "strict": True}}
SOURCE = json.dumps(SCHEMA, separators=(",", ":"))
FREE = CallableTool("f", None, "tools[0].function.parameters")
BOUND = CallableTool("g", SOURCE, "tools[1].function.parameters")


def grammar(dialect: Dialect = Dialect.OPENAI, prefix: str = "", **fields: Any) -> Any:
    body = {"model": "m", "messages": QUESTION, **fields}
    return grammar_of(parse_chat(json.dumps(body).encode(), dialect), prefix)


def json_schema(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema, **more}}


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises((InvalidRequest, RequestError)) as caught:
        grammar(**fields)
    error = api_error(caught.value)
    assert isinstance(error, InvalidRequest)
    return error


@pytest.mark.parametrize("dialect", list(Dialect))
def test_formats(dialect) -> None:
    assert grammar(dialect) is None
    assert grammar(dialect, response_format={"type": "text"}) is None
    any_object = GrammarSpec(TextRules())
    assert grammar(dialect, response_format={"type": "json_object"}) == any_object
    assert grammar(dialect, response_format={"type": "json_object", "json_schema": None}) == (
        any_object
    )
    for strict in (True, False):
        asked = json_schema(SCHEMA, strict=strict, description="d")
        assert grammar(dialect, response_format=asked) == GrammarSpec(
            TextRules(SOURCE, strict, SCHEMA_PARAM)
        )
    no_schema = {"type": "json_schema", "json_schema": {"name": "s"}}
    assert grammar(response_format=no_schema) == any_object


@pytest.mark.parametrize("dialect", list(Dialect))
@pytest.mark.parametrize(
    ("choice", "required"),
    [(None, False), ("auto", False), ("any", True), ("required", True)],
)
def test_choices_of_tools(dialect, choice, required) -> None:
    asked = {} if choice is None else {"tool_choice": choice}
    expected = GrammarSpec(calls=CallRules((FREE, BOUND), required=required))
    assert grammar(dialect, tools=[F, G], **asked) == expected


@pytest.mark.parametrize("choice", [{"type": "function"}, {}])
def test_a_named_tool_is_the_only_one(choice) -> None:
    choice = {**choice, "function": {"name": "g"}}
    assert grammar(tools=[F, G], tool_choice=choice) == GrammarSpec(
        calls=CallRules((BOUND,), required=True)
    )


def test_none_and_one_at_a_time() -> None:
    assert grammar(tools=[F], tool_choice="none") is None
    assert grammar(tools=[F], parallel_tool_calls=False) == GrammarSpec(
        calls=CallRules((FREE,), parallel=False)
    )
    assert grammar(parallel_tool_calls=False) is None


def test_json_or_calls() -> None:
    spec = grammar(tools=[F], response_format={"type": "json_object"}, prefix="{")
    assert spec == GrammarSpec(TextRules(), CallRules((FREE,)), "{")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tool_choice": {"function": {"name": "f"}}}, "tool_choice", "needs tools"),
        (
            {"tools": [F], "tool_choice": {"function": {"name": "h"}}},
            "tool_choice.function.name",
            "none of the tools",
        ),
        ({"tools": [F, F]}, "tools[1].function.name", "earlier tool"),
        ({"tools": [F], "ignore_eos": True}, "ignore_eos", "tools"),
        ({"tools": [F], "min_tokens": 3}, "min_tokens", "tools"),
        (
            {"response_format": {"type": "json_object"}, "prefix": "{" + " " * PREFIX_LIMIT},
            "messages",
            "longer than 65536",
        ),
        (
            {"response_format": {"type": "json_object"}, "min_tokens": 3},
            "min_tokens",
            "response_format",
        ),
        (
            {"response_format": json_schema({"type": "string", "oneOf": []})},
            SCHEMA_PARAM,
            "'oneOf'",
        ),
        (
            {"response_format": json_schema({"enum": ["x" * 70_000]})},
            SCHEMA_PARAM,
            "larger than",
        ),
        (
            {
                "tools": [
                    F,
                    {
                        "type": "function",
                        "function": {"name": "h", "strict": True, "parameters": {"type": "array"}},
                    },
                ]
            },
            "tools[1].function.parameters",
            "type 'object'",
        ),
    ],
)
def test_what_is_refused_before_any_work(fields, param, words) -> None:
    error = refused(**fields)
    assert error.param == param
    assert words in error.message


def test_strict_schemas_share_one_limit() -> None:
    big = {"type": "object", "properties": {"a": {"enum": ["x" * 40_000]}}}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": big, "strict": True}}
        for name in "fg"
    ]
    assert grammar(tools=tools[:1])
    assert refused(tools=tools).param == "tools[1].function.parameters"


def test_the_engine_is_given_the_grammar(gateway: Gateway) -> None:
    gateway.tiers.say("{}")
    endpoint = gateway.endpoint
    assert endpoint.chat(response_format={"type": "json_object"}).status_code == 200
    assert gateway.tiers.requests[-1].grammar == GrammarSpec(TextRules())
    assert endpoint.chat("/mistral/v1", tools=[WEATHER], tool_choice="any").status_code == 200
    given = gateway.tiers.requests[-1].grammar
    assert given.calls is not None
    assert given.calls.required


def test_what_the_group_refuses_to_compile_is_a_400_that_names_the_field(gateway: Gateway) -> None:
    gateway.tiers.generate_error = RequestError(SCHEMA_PARAM, "takes too long")
    for stream in (True, False):
        answer = gateway.endpoint.chat(response_format=json_schema(SCHEMA), stream=stream)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == SCHEMA_PARAM


def test_a_refused_schema_costs_nothing(gateway: Gateway) -> None:
    answer = gateway.endpoint.chat(response_format=json_schema({"not": {}}))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == SCHEMA_PARAM
    assert not gateway.tiers.prepared


def test_what_is_no_text_to_conform_may_be_continued_at_any_length() -> None:
    assert grammar(prefix="x" * (PREFIX_LIMIT + 1)) is None
    assert grammar(tools=[F], prefix="x" * (PREFIX_LIMIT + 1)) is not None


def test_tools_that_may_not_be_called_bind_nothing() -> None:
    assert grammar(tools=[F], tool_choice="none", min_tokens=3) is None
