from __future__ import annotations

import json

import pytest

from shards.conversation import ToolCall
from shards.tool_calls import is_tool_call_id, parse_tool_calls, tool_call_id


def test_calls_keep_name_arguments_and_id():
    text = ' [{"name": "weather", "arguments": {"city": "Zürich", "days": 2}, "id": "a1B2c3D4e"}]'
    assert parse_tool_calls(text, "r") == (
        ToolCall("a1B2c3D4e", "weather", '{"city": "Zürich", "days": 2}'),
    )


def test_arguments_written_as_text_are_taken_as_they_are():
    calls = parse_tool_calls('[{"name": "weather", "arguments": "{\\"a\\":1}"}]', "r")
    assert calls is not None
    assert calls[0].arguments == '{"a":1}'


@pytest.mark.parametrize("own", ["", ', "id": "call_1"', ', "id": 7', ', "id": "a1B2c3D4e\\n"'])
def test_a_call_without_a_usable_id_gets_one_of_its_own(own):
    call = f'{{"name": "weather", "arguments": {{}}{own}}}'
    first = parse_tool_calls(f"[{call}, {call}]", "request/0")
    assert first is not None
    assert all(is_tool_call_id(call.id) for call in first)
    assert first[0].id != first[1].id
    assert first == parse_tool_calls(f"[{call}, {call}]", "request/0")
    assert first != parse_tool_calls(f"[{call}, {call}]", "request/1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"name": "weather", "arguments": {}}',
        '[{"name": "weather", "arguments": {}}',
        '[{"name": "weather", "arguments": {}}] and more',
        '[{"name": "weather"}]',
        '[{"name": "", "arguments": {}}]',
        '[{"name": 1, "arguments": {}}]',
        '[{"name": "weather", "arguments": [1]}]',
        '[{"name": "weather", "arguments": {}}, "more"]',
        '[{"name": "a", "arguments": {}, "id": "a1B2c3D4e"}]'.replace("]", ",") * 2,
        '[{"name": "a", "arguments": {"half a pair": "\\ud83d"}}]',
        "[" * 100_000,
        '[{"name": "a", "arguments": {"n": ' + "1" * 5000 + "}}]",
    ],
)
def test_what_is_no_list_of_calls_is_left_to_be_text(text):
    assert parse_tool_calls(text, "r") is None


def test_no_two_calls_share_an_id():
    call = {"name": "weather", "arguments": {}, "id": "a1B2c3D4e"}
    calls = parse_tool_calls(json.dumps([call, call]), "r")
    assert calls is not None
    assert calls[0].id == "a1B2c3D4e" != calls[1].id


def test_made_ids_are_nine_letters_that_follow_from_the_seed():
    ids = {tool_call_id(f"call_{number}") for number in range(2000)}
    assert len(ids) == 2000
    assert all(is_tool_call_id(made) for made in ids)
    assert tool_call_id("call_1") == tool_call_id("call_1")


@pytest.mark.parametrize(
    "text", ["a1B2c3D4", "a1B2c3D4e5", "a1B2c3D4é", "a1B2c3D4e\n", "call_1234"]
)
def test_what_is_no_id(text):
    assert not is_tool_call_id(text)
