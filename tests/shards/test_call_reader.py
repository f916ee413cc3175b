from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.call_reader import CallPart, CallReader
from shards.tool_calls import is_tool_call_id

CALLS = (
    ' [{"name": "weather", "arguments": {"city": "Zürich", "days": [2]}}, '
    '{"name": "f", "arguments": {}}]'
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab"\\{}[]é'), inner),
    max_leaves=8,
)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.from_regex(r"[a-zA-Z0-9_-]{1,8}", fullmatch=True),
            "arguments": st.dictionaries(st.text(st.characters(codec="utf-8")), json_values),
        },
        optional={"id": json_values},
    ),
    min_size=1,
    max_size=3,
)


def read(pieces: Iterable[str], seed: str = "r") -> tuple[str, list[list[str]], CallReader]:
    """The text, each call's [id, name, arguments], and the reader at its end."""
    reader, text = CallReader(seed), ""
    found: dict[int, list[str]] = {}
    for piece in pieces:
        more, parts = reader.push(piece)
        text += more
        assert len({part.index for part in parts}) == len(parts)
        for part in parts:
            take(found, part)
    return text + reader.finish(), [found[index] for index in sorted(found)], reader


def take(found: dict[int, list[str]], part: CallPart) -> None:
    if part.index in found:
        assert (part.id, part.name) == ("", "")
        found[part.index][2] += part.arguments
    else:
        assert all((part.id, part.name, part.arguments))
        found[part.index] = [part.id, part.name, part.arguments]


def split(text: str, places: Iterable[int]) -> list[str]:
    cuts = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:stop] for start, stop in pairwise(cuts)]


def test_calls_keep_name_and_arguments_as_they_were_written():
    text, found, reader = read([CALLS])
    assert (text, reader.whole, reader.begun) == ("", True, 2)
    assert [call[1:] for call in found] == [
        ["weather", '{"city": "Zürich", "days": [2]}'],
        ["f", "{}"],
    ]


def test_a_call_begins_with_its_arguments_and_goes_on_as_they_come():
    reader = CallReader("r")
    assert reader.push('[{"name": "weather", "argu') == ("", [])
    _, [first] = reader.push('ments": {"ci')
    assert (first.name, first.arguments, first.last) == ("weather", '{"ci', False)
    assert is_tool_call_id(first.id)
    assert reader.push('ty": "Par') == ("", [CallPart(0, arguments='ty": "Par')])
    assert reader.push('is"}}') == ("", [CallPart(0, arguments='is"}', last=True)])
    assert not reader.whole
    _, [second] = reader.push(', {"arguments": {}, "name": "f"}]')
    assert (second.index, second.name, second.arguments, second.last) == (1, "f", "{}", True)
    assert reader.whole


@given(calls, st.lists(st.integers(0, 10_000), max_size=30), st.booleans(), st.booleans())
def test_any_split_gives_the_calls_that_json_gives(items, places, ascii_only, indent):
    text = json.dumps(items, ensure_ascii=ascii_only, indent=2 if indent else None)
    whole, pieces, letters = read([text]), read(split(text, places)), read(text)
    assert whole[:2] == pieces[:2] == letters[:2]
    shown, found, reader = pieces
    assert (shown, reader.whole, reader.broken) == ("", True, False)
    assert [(name, json.loads(arguments)) for _, name, arguments in found] == [
        (item["name"], item["arguments"]) for item in items
    ]
    assert all(is_tool_call_id(call_id) for call_id, _, _ in found)
    assert len({call_id for call_id, _, _ in found}) == len(items)


@given(
    st.text('[]{}":,\\ au1', max_size=40)
    | st.tuples(
        st.sampled_from([CALLS, CALLS[:-3], CALLS * 2]), st.integers(0, 90), st.text('"}{],x')
    ).map(lambda cut: cut[0][: cut[1]] + cut[2]),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_any_split_of_any_text_gives_the_same(text, places):
    whole, pieces = read([text]), read(split(text, places))
    assert whole[:2] == pieces[:2]
    assert whole[2].whole == pieces[2].whole
    if not whole[1]:
        assert whole[0] == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "plain words",
        '{"name": "weather", "arguments": {}}',
        '[{"name": "weather"}]',
        '[{"name": "", "arguments": {}}]',
        '[{"name": 1, "arguments": {}}]',
        '[{"name": "weather", "arguments": [1]}]',
        '[{"name": "weather", "arguments": 1}]',
        '[{"name": "weather", "arguments": "half a pair: \\ud83d"}]',
        '[{"na\\xme": "weather", "arguments": {}}]',
        '[{"id": tru, "name": "weather", "arguments": {}}]',
        '[{"name": "half a pair: \\ud83d", "arguments": {}}]',
        "[" * 100_000,
        '[{"id": ' + "1" * 5000 + ', "name": "a", "arguments": {}}]',
        '[{"name": "weather", "argum',
    ],
)
def test_what_is_no_list_of_calls_is_text(text):
    shown, found, reader = read([text])
    assert (shown, found, reader.whole) == (text, [], False)


def test_text_flows_on_once_it_is_no_list_of_calls():
    reader = CallReader("r")
    assert reader.push("[{") == ("", [])
    assert reader.push("oops") == ("[{oops", [])
    assert reader.push(" and more") == (" and more", [])


def test_what_follows_the_calls_is_text():
    shown, found, reader = read([CALLS + " and more"])
    assert shown == " and more"
    assert len(found) == 2
    assert reader.whole


def test_a_list_cut_short_keeps_the_calls_that_have_begun():
    shown, found, reader = read([CALLS[:47]])
    assert shown == ""
    assert [call[1:] for call in found] == [["weather", '{"city": "Zü']]
    assert not reader.whole
    assert [call[1] for call in read([CALLS[: CALLS.index(', {"name"') + 9]])[1]] == ["weather"]


def test_arguments_written_as_text_are_taken_as_they_are():
    assert read(['[{"name": "weather", "arguments": "{\\"a\\":1}"}]'])[1][0][2] == '{"a":1}'


def test_ids_follow_from_the_answer_and_the_place():
    first, again, other = read([CALLS]), read(CALLS), read([CALLS], "other")
    assert first[1] == again[1]
    assert [call[1:] for call in first[1]] == [call[1:] for call in other[1]]
    assert not {call[0] for call in first[1]} & {call[0] for call in other[1]}
