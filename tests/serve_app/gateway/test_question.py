"""Messages to conversations, and pictures out of data URLs."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from serve_app.errors import InvalidRequest
from serve_app.gateway.content_parts import ImagePart, ImageUrl
from serve_app.gateway.fields import Dialect
from serve_app.gateway.pictures import PictureRules, source_of
from serve_app.gateway.question import Question, question_of
from serve_app.gateway.validation import parse_chat
from serve_app.messages import PictureSource
from serve_app.preparing import Preprocess
from serve_app.preprocess.wish import Frames, Pages
from shards.conversation import Image, Message, Text, Tool, ToolCall

PNG = b"\x89PNG not looked at here"


def rules(**preprocess: Any) -> PictureRules:
    return PictureRules.of(Preprocess(max_picture_bytes=1000, **preprocess))


RULES = rules()


def url(data: bytes = PNG, media: str = "image/png") -> str:
    return f"data:{media};base64,{base64.b64encode(data).decode()}"


def image(data: bytes = PNG) -> Any:
    return {"type": "image_url", "image_url": {"url": url(data), "detail": "low"}}


def part(address: str) -> ImagePart:
    return ImagePart(type="image_url", image_url=ImageUrl(url=address))


def question(messages: list[Any], max_pictures: int = 8, **fields: Any) -> Question:
    body = json.dumps({"model": "m", "messages": messages, **fields}).encode()
    return question_of(parse_chat(body, Dialect.OPENAI), max_pictures, RULES)


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
    assert RULES.pictures.bytes_of(url(media=media), "p", 1000) == PNG


def test_parameters_of_a_media_type_do_not_hurt() -> None:
    assert RULES.pictures.bytes_of(url(media="image/png;charset=utf-8"), "p", 1000) == PNG


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
        RULES.pictures.bytes_of(bad, "messages[0].content[1].image_url", 1000)
    assert caught.value.param == "messages[0].content[1].image_url"
    assert word in caught.value.message
    assert bad[30:] not in caught.value.message or len(bad) < 31


@pytest.mark.parametrize("address", ["https://example.com/a.png?s=1", "HTTP://example.com/a.png"])
def test_addresses_are_refused_unless_the_operator_allows_them(address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"preprocess\.fetch\.allow_hosts") as caught:
        source_of(part(address), "p", RULES)
    assert (caught.value.param, caught.value.code) == ("p.image_url", "unsupported_value")


def test_an_allowed_address_is_left_to_preprocessing() -> None:
    allowing = rules(fetch={"allow_hosts": ["example.com"]})
    address = "https://example.com/a.png?s=1"
    assert source_of(part(address), "p", allowing) == PictureSource(b"", "p.image_url", address)
    assert source_of(part(url()), "p", allowing) == PictureSource(PNG, "p.image_url")


def test_a_picture_of_exactly_the_limit_passes() -> None:
    assert len(RULES.pictures.bytes_of(url(b"x" * 1000), "p", 1000)) == 1000


@pytest.mark.parametrize(
    ("formats", "media"), [(("tiff",), "image/tiff"), (("heif",), "image/heic")]
)
def test_other_formats_are_taken_where_they_are_set(formats: tuple[str, ...], media: str) -> None:
    with pytest.raises(InvalidRequest, match="not 'image/"):
        RULES.pictures.bytes_of(url(media=media), "p", 1000)
    assert rules(formats=formats).pictures.bytes_of(url(media=media), "p", 1000) == PNG


def asked(part: Any, **preprocess: Any) -> PictureSource:
    """Of the one part of a question."""
    messages = [{"role": "user", "content": [part]}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    taken = question_of(parse_chat(body, Dialect.OPENAI), 8, rules(**preprocess))
    [source] = taken.pictures
    return source


def picture(address: str, **fields: Any) -> Any:
    return {"type": "image_url", "image_url": {"url": address, **fields}}


def document(address: str, **fields: Any) -> Any:
    return {"type": "document_url", "document_url": address, **fields}


PDF = url(b"%PDF-", "application/pdf")
PICTURE_PLACE = "messages[0].content[0].image_url"
DOCUMENT_PLACE = "messages[0].content[0].document_url"


@pytest.mark.parametrize("detail", ["auto", "low", "high", "original"])
def test_detail_travels(detail: Any) -> None:
    assert asked(picture(url(), detail=detail)) == PictureSource(PNG, PICTURE_PLACE, detail=detail)
    assert asked(picture(url(), detail=None)).detail == "auto"
    assert asked(document(PDF, detail=detail), documents=TAKEN).detail == detail


@pytest.mark.parametrize(
    ("fields", "fragment", "wish"),
    [
        ({"count": 8}, "#frames=8", Frames(count=8)),
        ({"indices": [4, 0]}, "#indices=4,0", Frames(indices=(4, 0))),
        ({"indices": [4, 0]}, "#indices=4%2C0", Frames(indices=(4, 0))),
    ],
)
def test_frames_are_asked_for_beside_the_url_or_behind_it(
    fields: dict[str, Any], fragment: str, wish: Frames
) -> None:
    assert asked(picture(url(), frames=fields)) == PictureSource(PNG, PICTURE_PLACE, wish=wish)
    assert asked(picture(url() + fragment)) == PictureSource(PNG, PICTURE_PLACE, wish=wish)
    plain = {"type": "image_url", "image_url": url() + fragment}
    assert asked(plain).wish == wish
    fetch = {"allow_hosts": ["example.com"]}
    address = "https://example.com/a.gif"
    fetched = asked(picture(address + fragment), fetch=fetch)
    assert fetched == PictureSource(b"", PICTURE_PLACE, address, wish)


TAKEN = {"enabled": True, "max_bytes": 1000, "dpi": 99}


@pytest.mark.parametrize(
    ("fields", "fragment", "wish"),
    [
        ({}, "", Pages((), 99)),
        ({"pages": "1-3,7,9-"}, "#pages=1-3,7,9-", Pages(((1, 3), (7, 7), (9, None)), 99)),
        ({"pages": "2", "dpi": 50}, "#pages=2&dpi=50", Pages(((2, 2),), 50)),
    ],
)
def test_pages_are_asked_for_beside_the_url_or_behind_it(
    fields: dict[str, Any], fragment: str, wish: Pages
) -> None:
    expected = PictureSource(b"%PDF-", DOCUMENT_PLACE, wish=wish)
    assert asked(document(PDF, **fields), documents=TAKEN) == expected
    named = document(PDF + fragment, document_name="report.pdf")
    assert asked(named, documents=TAKEN) == expected


def test_a_document_s_detail_may_stand_behind_its_url() -> None:
    assert asked(document(f"{PDF}#detail=low"), documents=TAKEN).detail == "low"


def test_documents_are_refused_unless_the_operator_enables_them() -> None:
    with pytest.raises(InvalidRequest, match="not enabled") as caught:
        asked(document(PDF))
    assert (caught.value.param, caught.value.code) == (DOCUMENT_PLACE, "unsupported_value")


@pytest.mark.parametrize(
    ("part", "param", "words"),
    [
        (picture(url(), frames={}), "image_url.frames", "either count or indices"),
        (picture(url(), frames={"count": 1, "indices": [0]}), "image_url.frames", "either"),
        (picture(url(), frames={"count": 0}), "image_url.frames.count", "greater"),
        (picture(url(), frames={"indices": []}), "image_url.frames.indices", "at least 1"),
        (picture(url(), frames={"indices": [-1]}), "image_url.frames.indices[0]", "greater"),
        (picture(url(), frames={"count": 33}), "image_url.frames", "at most 32"),
        (picture(url(), frames={"indices": [0] * 33}), "image_url.frames", "at most 32"),
        (picture(f"{url()}#frames=x"), "image_url", "integer"),
        (picture(f"{url()}#frames=2", frames={"count": 3}), "image_url", "says frames twice"),
        (picture(f"{url()}#frames=2&indices=1"), "image_url", "says frames twice"),
        (picture(f"{url()}#page=2"), "image_url", "but frames, indices"),
        (document(PDF, pages="0"), "pages", "such as"),
        (document(PDF, pages="3-1"), "pages", "rise"),
        (document(PDF, pages="1;2"), "pages", "such as"),
        (document(PDF, pages=3), "pages", "string"),
        (document(PDF, dpi=9), "dpi", "greater"),
        (document(PDF, dpi=601), "dpi", "less"),
        (document(PDF, detail="tiny"), "detail", "'auto'"),
        (document(f"{PDF}#pages=1", pages="1"), "document_url", "says pages twice"),
        (document(f"{PDF}#frames=1"), "document_url", "but pages, dpi, detail"),
        (document(url()), "document_url", "application/pdf"),
        (document("https://example.com/a.pdf"), "document_url", "data URL"),
        (document(url(b"x" * 1001, "application/pdf")), "document_url", "larger than 1000"),
    ],
)
def test_what_makes_no_sense_is_refused_where_it_stands(part: Any, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(part, documents=TAKEN)
    assert caught.value.param == f"messages[0].content[0].{param}"
    assert words in caught.value.message


def test_a_document_counts_as_a_picture_at_least() -> None:
    messages = [{"role": "user", "content": [document(PDF)] * 3}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    with pytest.raises(InvalidRequest) as caught:
        question_of(parse_chat(body, Dialect.OPENAI), 2, rules(documents=TAKEN))
    assert caught.value.code == "too_many_pictures"
