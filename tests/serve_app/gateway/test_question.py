"""Messages to conversations, and pictures out of data URLs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from serve_app.errors import InvalidRequest
from serve_app.gateway.content_parts import ImagePart, ImageUrl
from serve_app.gateway.fields import Dialect
from serve_app.gateway.pictures import PICTURES, PictureRules, source_of
from serve_app.gateway.question import Question, question_of
from serve_app.gateway.validation import parse_chat
from serve_app.messages import PictureSource
from serve_app.preprocess.picture_urls import UrlPolicy
from shards.conversation import Image, Message, Text, Tool, ToolCall

PNG = b"\x89PNG not looked at here"


def url(data: bytes = PNG, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def image(data: bytes = PNG) -> Any:
    return {"type": "image_url", "image_url": {"url": url(data), "detail": "low"}}


def part(address: str) -> ImagePart:
    return ImagePart(type="image_url", image_url=ImageUrl(url=address))


def question(messages: list[Any], max_pictures: int = 8, **fields: Any) -> Question:
    body = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    return question_of(parse_chat(body, Dialect.OPENAI), max_pictures, PictureRules(1000))


def test_a_conversation_keeps_its_order_and_numbers_its_pictures() -> None:
    asked = question(
        [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [image(b"a"), {"type": "text", "text": "x"}, image(b"b")]},
            {"role": "assistant", "content": [{"type": "text", "text": "two"}]},
            {"role": "user", "content": [{"type": "text", "text": "y"}, image(b"c")]},
        ]
    )
    assert asked.conversation.messages == (
        Message("system", (Text("Be brief."),)),
        Message("user", (Image(0), Text("x"), Image(1))),
        Message("assistant", (Text("two"),)),
        Message("user", (Text("y"), Image(2))),
    )
    assert [source.data for source in asked.pictures] == [b"a", b"b", b"c"]
    assert tuple(source.param for source in asked.pictures) == (
        "messages[1].content[0].image_url",
        "messages[1].content[2].image_url",
        "messages[3].content[1].image_url",
    )


def test_tools_calls_and_results_travel() -> None:
    function = {"name": "f", "parameters": {"type": "object"}}
    calls = [
        {"id": "c1", "function": {"name": "f", "arguments": {"city": "Zürich"}}},
        {"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}},
    ]
    asked = question(
        [
            {"role": "user", "content": "x"},
            {"role": "assistant", "tool_calls": calls},
            {"role": "tool", "content": "42", "tool_call_id": "c1", "name": "f"},
        ],
        tools=[{"type": "function", "function": function}],
    )
    assert asked.conversation.tools == (Tool("f", "", {"type": "object"}),)
    assert asked.conversation.messages[1].tool_calls == (
        ToolCall("c1", "f", '{"city": "Zürich"}'),
        ToolCall("c2", "f", "{}"),
    )
    assert asked.conversation.messages[2] == Message(
        "tool", (Text("42"),), tool_call_id="c1", name="f"
    )


def test_tool_choice_none_leaves_the_tools_out_of_the_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    asked = question([{"role": "user", "content": "x"}], tools=tools, tool_choice="none")
    assert asked.conversation.tools == ()


def test_an_assistant_turn_must_say_something() -> None:
    with pytest.raises(InvalidRequest) as caught:
        question([{"role": "user", "content": "x"}, {"role": "assistant"}])
    assert caught.value.param == "messages[1]"


def test_a_prefix_is_the_text_to_go_on_from() -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "Dear"}]
    assert question(turns).prefix == ""
    turns[1]["prefix"] = True  # type: ignore[assignment]  # a bool among strings
    assert question(turns).prefix == "Dear"


def test_too_many_pictures_are_refused_before_any_is_decoded() -> None:
    broken = {"type": "image_url", "image_url": "data:image/png;base64,!!!"}
    with pytest.raises(InvalidRequest) as caught:
        question([{"role": "user", "content": [broken] * 3}], max_pictures=2)
    assert caught.value.code == "too_many_pictures"


@pytest.mark.parametrize(
    "media", ["image/png", "image/jpeg", "image/jpg", "image/webp", "image/gif", "IMAGE/PNG"]
)
def test_the_four_formats_are_taken(media: str) -> None:
    assert PICTURES.bytes_of(url(media=media), "p", 1000) == PNG


def test_parameters_of_a_media_type_do_not_hurt() -> None:
    assert PICTURES.bytes_of(url(media="image/png;charset=utf-8"), "p", 1000) == PNG


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ("https://example.com/a.png", "data URL"),
        ("file:///etc/passwd", "data URL"),
        (base64.b64encode(PNG).decode(), "data URL"),
        ("data:image/png,abc", "data URL"),
        (url(media="image/bmp"), "image/bmp"),
        (url(media="text/html"), "text/html"),
        (url(media=""), "image/jpeg"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,AAA", "base64"),
        ("data:image/png;base64,AA AA", "base64"),
        ("data:image/png;base64,ÄÄÄÄ", "base64"),
        (url(b"x" * 1001), "1000 bytes"),
        ("data:image/png;base64," + "!" * 100_000, "1000 bytes"),
    ],
)
def test_a_bad_picture_url_is_refused_and_never_echoed(bad: str, word: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        PICTURES.bytes_of(bad, "messages[0].content[1].image_url", 1000)
    assert caught.value.param == "messages[0].content[1].image_url"
    assert word in caught.value.message
    assert bad[30:] not in caught.value.message or len(bad) < 31


@pytest.mark.parametrize("address", ["https://example.com/a.png?s=1", "HTTP://example.com/a.png"])
def test_addresses_are_refused_unless_the_operator_allows_them(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"preprocess\.fetch\.allow_hosts") as caught:
        source_of(part(address), "p", PictureRules(1000))
    assert (caught.value.param, caught.value.code) == ("p.image_url", "unsupported_value")


def test_an_allowed_address_is_left_to_preprocessing() -> None:
    rules = PictureRules(1000, UrlPolicy({"example.com"}))
    address = "https://example.com/a.png?s=1"
    assert source_of(part(address), "p", rules) == PictureSource(b"", "p.image_url", address)
    assert source_of(part(url()), "p", rules) == PictureSource(PNG, "p.image_url")


def test_a_picture_of_exactly_the_limit_passes() -> None:
    assert len(PICTURES.bytes_of(url(b"x" * 1000), "p", 1000)) == 1000
