"""Malformed bodies: each fault is named where it stands, and nothing is echoed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.errors import InvalidRequest
from serve_app.gateway.fields import Dialect
from serve_app.gateway.validation import MalformedBody, parse_chat

URL = "data:image/png;base64,AAAA"


def parse(dialect: Dialect = Dialect.OPENAI, **fields: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
    return parse_chat(json.dumps(body).encode(), dialect)


def fault(**fields: Any) -> tuple[str | None, str, str]:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    return caught.value.param, caught.value.code, caught.value.message


def in_user(part: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": "hi"}, "messages", "invalid_type"),
        ({"model": 5}, "model", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": True}, "temperature", "invalid_type"),
        ({"n": 1.5}, "n", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stop": ["x"] * 17}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop[0]", "invalid_value"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
        (
            {"stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
            "unsupported_value",
        ),
        ({"tool_choice": "sometimes"}, "tool_choice", "unsupported_value"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice", "unsupported_value"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice", "unsupported_value"),
        ({"tool_choice": {"type": "function"}}, "tool_choice", "unsupported_value"),
        (
            {"tool_choice": {"type": "function", "function": {}}},
            "tool_choice.function.name",
            "missing_required_parameter",
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": 5}}},
            "tool_choice.function.name",
            "invalid_type",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", "invalid_type"),
        ({"response_format": "json"}, "response_format", "invalid_type"),
        ({"response_format": {}}, "response_format.type", "missing_required_parameter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "unsupported_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name",
            "missing_required_parameter",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "invalid_value",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}},
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        (
            {"response_format": {"type": "json_object", "json_schema": {"name": "a"}}},
            "response_format.json_schema",
            "unsupported_parameter",
        ),
        ({"tools": [{"type": "custom"}]}, "tools[0].type", "invalid_value"),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools[0].function.name",
            "invalid_value",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": 1}}]},
            "tools[0].function.strict",
            "invalid_type",
        ),
        ({"messages": [{"content": "hi"}]}, "messages[0].role", "missing_required_parameter"),
        (
            {"messages": [{"role": "function", "content": "x", "name": "f"}]},
            "messages[0].role",
            "unsupported_value",
        ),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "name": "Ann"}]},
            "messages[0].name",
            "unsupported_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "colour": 1}]},
            "messages[0].colour",
            "unknown_parameter",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages[0].tool_call_id",
            "missing_required_parameter",
        ),
        (
            {"messages": in_user({"type": "image_url", "image_url": {"url": 5}})},
            "messages[0].content[1].image_url.url",
            "invalid_type",
        ),
        (
            {"messages": in_user({"type": "image_url", "image_url": {}})},
            "messages[0].content[1].image_url.url",
            "missing_required_parameter",
        ),
        (
            {"messages": in_user({"type": "image_url"})},
            "messages[0].content[1].image_url",
            "missing_required_parameter",
        ),
        (
            {
                "messages": in_user(
                    {"type": "image_url", "image_url": {"url": URL, "detail": "max"}}
                )
            },
            "messages[0].content[1].image_url.detail",
            "invalid_value",
        ),
        (
            {"messages": in_user({"type": "text", "text": "x", "bold": True})},
            "messages[0].content[1].bold",
            "unknown_parameter",
        ),
        (
            {"messages": in_user({"text": "x"})},
            "messages[0].content[1].type",
            "missing_required_parameter",
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": [{"type": "image_url", "image_url": URL}]}
                ]
            },
            "messages[0].content[0].type",
            "invalid_value",
        ),
    ],
)
def test_a_fault_is_named_where_it_stands(fields: Any, param: str, code: str) -> None:
    assert fault(**fields)[:2] == (param, code)
    assert param in fault(**fields)[2]


@pytest.mark.parametrize("kind", ["input_audio", "file", "thinking", "reference"])
def test_content_we_cannot_read_is_refused_by_name(kind: str) -> None:
    param, code, message = fault(messages=in_user({"type": kind, kind: "x"}))
    assert (param, code) == ("messages[0].content[1].type", "unsupported_value")
    assert kind in message
    assert "image_url" in message


def test_every_fault_is_listed_and_the_first_is_the_message() -> None:
    with pytest.raises(MalformedBody) as caught:
        parse(temperature="hot", n="many", colour=None, messages=[{"role": "user", "x": 1}])
    assert caught.value.param == "colour"
    with pytest.raises(MalformedBody) as caught:
        parse(temperature="hot", n="many")
    assert [entry["loc"] for entry in caught.value.faults] == [["temperature"], ["n"]]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[1]", b'"x"', b"\xff\xfe", b'{"model": NaN}', b'{"a":' * 500 + b"1" + b"}" * 500],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body, Dialect.OPENAI)
    assert caught.value.code == "invalid_json"


def test_nothing_of_the_body_is_echoed() -> None:
    secret = "SECRET" * 50
    faults = [
        fault(model={"x": secret}),
        fault(messages=in_user({"type": "image_url", "image_url": {"url": [secret]}})),
        fault(messages=in_user({"type": secret})),
        fault(messages=[{"role": secret, "content": "x"}]),
        fault(stop=[secret]),
        fault(**{secret: 1}),
    ]
    assert not any(secret in (message + str(param)) for param, _, message in faults)


def test_an_answer_of_ours_can_be_sent_back_whole() -> None:
    answer = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "audio": None,
        "annotations": None,
        "function_call": None,
        "tool_calls": [
            {
                "index": 0,
                "id": "a1B2c3D4e",
                "type": "function",
                "function": {"name": "f", "arguments": "{}"},
            }
        ],
    }
    parse(messages=[{"role": "user", "content": "x"}, answer])


def test_infinite_numbers_are_refused() -> None:
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}],"temperature":1e999}'
    with pytest.raises(MalformedBody) as caught:
        parse_chat(body, Dialect.OPENAI)
    assert caught.value.param == "temperature"
