"""What is refused, how it is said, and that nothing else is."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

import pytest
from mistral_common.exceptions import MistralCommonException

from shards.conversation import Conversation, Image, Message, Text, Tool, ToolCall
from shards.errors import RequestError
from tests.shards.conversations import called, told_to_mistral, user


def weather(name: str = "weather", parameters: Mapping[str, Any] | None = None) -> Tool:
    return Tool(name, "", parameters or {"type": "object"})


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


HELLO = Message("user", (Text("hello"),))
ANSWER = Message("assistant", (Text("hi"),))
CALL = Message("assistant", (), (ToolCall("abcdefghi", "weather", "{}"),))
RESULT = Message("tool", (Text("1"),), (), "abcdefghi")
REFUSED = {
    "no messages": (Conversation(()), "messages", "at least one message"),
    "ends with the assistant": (Conversation((HELLO, ANSWER)), "messages", r"messages\[1\].*last"),
    "starts with the assistant": (Conversation((ANSWER,)), "messages", "last message|start"),
    "tool after user": (Conversation((HELLO, RESULT)), "messages", r"messages\[1\]: role 'tool'"),
    "call without result": (Conversation((HELLO, CALL, HELLO)), "messages", "every tool call"),
    "result without id": (
        Conversation((HELLO, CALL, Message("tool", (Text("1"),)))),
        "messages",
        r"messages\[2\]: tool_call_id is missing",
    ),
    "empty assistant": (
        Conversation((HELLO, Message("assistant", ()), HELLO)),
        "messages",
        r"messages\[1\].*needs content or tool_calls",
    ),
    "prefix in the middle": (
        Conversation((HELLO, Message("assistant", (Text("a"),), prefix=True), HELLO)),
        "messages",
        r"messages\[1\].*prefix must be the last",
    ),
    "user prefix": (
        Conversation((Message("user", (Text("a"),), prefix=True),)),
        "messages",
        r"messages\[0\].*prefix",
    ),
    "picture of the assistant": (
        Conversation((HELLO, Message("assistant", (Image(0),)), HELLO)),
        "messages",
        r"messages\[1\]: only user",
    ),
    "bad called name": (
        Conversation((HELLO, Message("assistant", (), (ToolCall("a", "a b", ""),)), RESULT)),
        "messages",
        "function that was called",
    ),
    "bad result name": (
        Conversation((HELLO, CALL, Message("tool", (Text("1"),), (), "abcdefghi", "a b"))),
        "messages",
        "name in a tool message",
    ),
    "half a surrogate pair": (user(Text("\ud83d")), "messages", r"messages\[0\].*Unicode"),
    "half a surrogate pair in a tool": (
        Conversation((HELLO,), (weather(parameters={"description": "\ud83d"}),)),
        "tools",
        r"tools\[0\].*Unicode",
    ),
    "bad tool name": (
        Conversation((HELLO,), (weather(), weather("get weather"))),
        "tools",
        r"tools\[1\]: the name 'get weather'",
    ),
    "bad schema": (
        Conversation((HELLO,), (weather(parameters={"type": "objekt"}),)),
        "tools",
        "JSON schema",
    ),
    "bottomless schema": (
        Conversation((HELLO,), (weather(parameters=deep(3000)),)),
        "tools",
        "too deep",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_field_and_place(tokenizer, case):
    conversation, param, message = REFUSED[case]
    pictures = len({p for m in conversation.messages for p in m.content if isinstance(p, Image)})
    for refuse in (
        lambda: tokenizer.check(conversation, pictures),
        lambda: tokenizer.encode(conversation, [(1, 1)] * pictures),
    ):
        if case == "empty assistant" and tokenizer.family == "sentencepiece":
            refuse = lambda: tokenizer.encode(conversation, [])  # noqa: E731
        with pytest.raises(RequestError, match=message) as caught:
            refuse()
        assert caught.value.param == param
        assert not re.search("[Mm]istral|pydantic|Exception|Error", str(caught.value))


def test_content_beside_calls_is_refused_only_by_the_model_that_cannot(tokenizer, family):
    spoken = Message("assistant", (Text("let me see"),), CALL.tool_calls)
    conversation = Conversation((HELLO, spoken, RESULT))
    if family == "sentencepiece":
        assert tokenizer.encode(conversation, []).text_tokens > 0
    else:
        with pytest.raises(RequestError, match="not both"):
            tokenizer.check(conversation, 0)


@pytest.mark.parametrize("arguments", ["[" * 100_000, "1" * 5000])
def test_tool_json_that_python_cannot_read_is_refused(tokenizer, arguments):
    with pytest.raises(RequestError) as caught:
        tokenizer.encode(called("abcdefghi", "abcdefghi", arguments), [])
    assert caught.value.param == "messages"


@pytest.mark.parametrize("pictures", [0, 1, 3])
def test_pictures_must_be_those_that_are_named(tokenizer, pictures):
    conversation = user(Image(0), Text("and"), Image(1))
    with pytest.raises(RequestError, match=f"2 pictures are named but {pictures} came"):
        tokenizer.check(conversation, pictures)
    with pytest.raises(RequestError, match=f"2 pictures are named but {pictures} came"):
        tokenizer.encode(conversation, [(1, 1)] * pictures)


def test_nothing_is_refused_that_mistral_common_takes(tokenizer, oracle):
    """And the other way round, over every short order of roles."""
    kinds = [HELLO, ANSWER, CALL, RESULT, Message("system", (Text("be brief"),))]
    kinds.append(Message("assistant", (Text("so"),), prefix=True))
    rng = random.Random(3)
    taken = 0
    for _ in range(400):
        conversation = Conversation(tuple(rng.choices(kinds, k=rng.randint(1, 5))))
        try:
            expected = oracle.encode_chat_completion(told_to_mistral(conversation, []))
        except (MistralCommonException, ValueError):
            with pytest.raises(RequestError):
                tokenizer.encode(conversation, [])
        else:
            taken += 1
            assert list(tokenizer.encode(conversation, []).token_ids) == expected.tokens
    assert 20 < taken < 380
