"""Prompts against unmodified mistral-common, which is given real pictures and asked for pixels."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct.chunk import ContentChunk, ImageChunk, TextChunk
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall
from mistral_common.protocol.instruct.tool_calls import Tool as MistralTool
from mistral_common.protocol.instruct.tool_calls import ToolCall as MistralToolCall
from mistral_common.protocol.instruct.validator import ValidationMode
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image as Pillow

from shards.conversation import Conversation, Image, Message, Text, Tool, ToolCall
from shards.detokenizer import TextStream
from shards.errors import ModelConfigError, RequestError
from shards.tokenizer import Tokenizer

DATA = MistralTokenizer._data_path()
FILES = {
    "sentencepiece": "mistral_instruct_tokenizer_241114.model.v7m1",
    "tekken": "tekken_240911.json",
}
WORDS = ["what", "is", "in this", "picture?", "猫", "🙂", "naïve", "e\u0301", "\n\n", " ", "\t"]
WORDS += ["[IMG]", "</s>", "[INST]", "[TOOL_CALLS]", "<0x41>", ""]
CONTROLS = ["[IMG]", "[IMG_BREAK]", "[IMG_END]", "</s>", "<s>", "[INST]", "[/INST]", "<unk>"]
SIZES = [(1, 3000), (5000, 7), (1, 1), (16, 16), (17, 33), (1024, 1024), (1025, 3), (300, 200)]

Size = tuple[int, int]


@pytest.fixture(scope="module", params=["sentencepiece", "tekken"])
def family(request) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(family) -> Tokenizer:
    return Tokenizer(DATA / FILES[family])


@pytest.fixture(scope="module")
def oracle(family):
    return MistralTokenizer.from_file(DATA / FILES[family], mode=ValidationMode.serving)


class Draw:
    """Random conversations of the kinds that clients send."""

    def __init__(self, seed: int, family: str) -> None:
        self.rng = random.Random(f"{family}{seed}")
        self.family = family
        self.sizes: list[Size] = []

    def conversation(self) -> Conversation:
        messages = []
        if self.rng.random() < 0.5:
            messages.append(Message("system", (self.text(),)))
        for _ in range(self.rng.randint(0, 3)):
            messages += self.turn()
        if self.rng.random() < 0.2:
            messages += self.calls()
        else:
            messages.append(self.user())
            if self.rng.random() < 0.2:
                messages.append(Message("assistant", (self.text(),), prefix=True))
        tools = tuple(map(self.tool, range(self.rng.choice([0, 0, 1, 3]))))
        return Conversation(tuple(messages), tools)

    def turn(self) -> list[Message]:
        if self.rng.random() < 0.3:
            return [*self.calls(), Message("assistant", (self.text(),))]
        users = [self.user() for _ in range(self.rng.choice([1, 1, 2]))]
        return [*users, Message("assistant", (self.text(),))]

    def calls(self) -> list[Message]:
        count = self.rng.randint(1, 3)
        ids = ["".join(self.rng.choices("abcXYZ019", k=9)) for _ in range(count)]
        arguments = ['{"city": "Zürich", "n": [1, 2.50]}', "", "{}", "not json", '"text"']
        calls = tuple(
            ToolCall(call_id, f"tool_{place}", self.rng.choice(arguments))
            for place, call_id in enumerate(ids)
        )
        said = (self.text(),) if self.family == "sentencepiece" and self.rng.random() < 0.3 else ()
        results = [
            Message(
                "tool", (Text(self.rng.choice(["42", "{}", '{"a":  [1]}', "sunny 🌞"])),), (), i
            )
            for i in ids
        ]
        return [self.user(), Message("assistant", said, calls), *results]

    def user(self) -> Message:
        kinds: list[Callable[[], Text | Image]] = [self.image, self.text, self.text]
        count = self.rng.choice([1, 1, 2, 3, 5])
        return Message("user", tuple(self.rng.choice(kinds)() for _ in range(count)))

    def text(self) -> Text:
        return Text(" ".join(self.rng.choices(WORDS, k=self.rng.randint(1, 12))) or "hello")

    def image(self) -> Image:
        """A new picture, or one that was shown before."""
        if self.sizes and self.rng.random() < 0.2:
            return Image(self.rng.randrange(len(self.sizes)))
        random_size = (self.rng.randint(1, 400), self.rng.randint(1, 400))
        self.sizes.append(self.rng.choice([*SIZES, *[random_size] * 16]))
        return Image(len(self.sizes) - 1)

    def tool(self, index: int) -> Tool:
        parameters = {"type": "object", "properties": {"city": {"type": "string", "x": "é"}}}
        return Tool(f"tool_{index}", self.text().text, parameters, strict=index == 1)


def told_to_mistral(
    conversation: Conversation, sizes: list[Size]
) -> ChatCompletionRequest[mistral.ChatMessage]:
    """The same conversation as a user of mistral-common would write it, pictures included."""

    def content(message: Message) -> str | list[ContentChunk]:
        if len(message.content) == 1 and isinstance(message.content[0], Text):
            return message.content[0].text
        return [
            TextChunk(text=part.text)
            if isinstance(part, Text)
            else ImageChunk(image=Pillow.new("RGB", sizes[part.index], (part.index, 1, 2)))
            for part in message.content
        ]

    def one(message: Message) -> mistral.ChatMessage:
        match message.role:
            case "system":
                return mistral.SystemMessage(content=content(message))
            case "user":
                return mistral.UserMessage(content=content(message))
            case "tool":
                return mistral.ToolMessage(
                    content=content(message), tool_call_id=message.tool_call_id
                )
            case "assistant":
                calls = [
                    MistralToolCall(
                        id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments)
                    )
                    for call in message.tool_calls
                ]
                return mistral.AssistantMessage(
                    content=content(message) or None,
                    tool_calls=calls or None,
                    prefix=message.prefix,
                )

    tools = [
        MistralTool(
            function=Function(
                name=tool.name,
                description=tool.description,
                parameters=dict(tool.parameters),
                strict=tool.strict,
            )
        )
        for tool in conversation.tools
    ]
    return ChatCompletionRequest(
        model="any", messages=[one(message) for message in conversation.messages], tools=tools
    )


@pytest.mark.parametrize("batch", range(8))
def test_random_conversations_give_mistral_commons_tokens(tokenizer, oracle, family, batch):
    """8 x 30 per family: 480 conversations."""
    for seed in range(batch * 30, batch * 30 + 30):
        draw = Draw(seed, family)
        conversation = draw.conversation()
        expected = oracle.encode_chat_completion(told_to_mistral(conversation, draw.sizes))

        tokenizer.check(conversation, len(draw.sizes))
        prompt = tokenizer.encode(conversation, draw.sizes)

        assert list(prompt.token_ids) == expected.tokens
        assert prompt.text_tokens + prompt.image_tokens == len(expected.tokens)
        assert prompt.image_tokens == sum(grid.tokens for grid in prompt.grids)
        assert [(3, 16 * grid.rows, 16 * grid.columns) for grid in prompt.grids] == [
            image.shape for image in expected.images
        ]
        # The red value of a picture is its index.
        reds = [
            round((image[0, 0, 0] * 0.26862954 + 0.48145466) * 255) for image in expected.images
        ]
        assert list(prompt.picture_order) == reds


def test_random_conversations_cover_what_they_claim():
    drawn = [Draw(seed, "sentencepiece") for seed in range(240)]
    conversations = [draw.conversation() for draw in drawn]
    roles = {message.role for c in conversations for message in c.messages}
    assert roles == {"system", "user", "assistant", "tool"}
    assert any(c.tools for c in conversations)
    assert any(c.messages[-1].prefix for c in conversations)
    assert any(
        c.picture_count > len(draw.sizes) for c, draw in zip(conversations, drawn, strict=True)
    )
    assert {size for draw in drawn for size in draw.sizes} >= set(SIZES)


def user(*parts: Text | Image) -> Conversation:
    return Conversation((Message("user", parts),))


def test_texts_ending_in_one_picture_are_shown_picture_first(tokenizer):
    both = Conversation(
        (
            *user(Image(1), Image(0)).messages,
            Message("assistant", (Text("two pictures"),)),
            *user(Text("and"), Image(2)).messages,
        )
    )
    prompt = tokenizer.encode(both, [(16, 16), (32, 16), (16, 32)])
    assert prompt.picture_order == (1, 0, 2)
    assert [(grid.rows, grid.columns) for grid in prompt.grids] == [(1, 2), (1, 1), (2, 1)]
    one = tokenizer.encode(user(Text("look at"), Image(0)), [(16, 16)])
    assert list(one.token_ids).index(tokenizer.vocabulary.image_id) == 2


@pytest.mark.parametrize("text", [*CONTROLS, "".join(CONTROLS), " ".join(CONTROLS)])
def test_text_never_becomes_a_control_token(tokenizer, family, text):
    plain = tokenizer.encode(user(Text("plain")), [])
    expected = sorted(set(plain.token_ids) & tokenizer.vocabulary.control_ids)
    prompt = tokenizer.encode(user(Text(text)), [])
    shown = [i for i in prompt.token_ids if i in tokenizer.vocabulary.control_ids]
    assert sorted(shown) == expected == [1, 3, 4]
    assert TextStream(tokenizer.vocabulary).push(prompt.token_ids) == text


def test_vocabulary_knows_the_ids_of_the_family(tokenizer, family):
    vocabulary = tokenizer.vocabulary
    assert tokenizer.family == family
    assert (vocabulary.image_id, vocabulary.image_break_id, vocabulary.image_end_id) == (
        (10, 14, 15) if family == "sentencepiece" else (10, 12, 13)
    )
    assert vocabulary.tool_calls_id == (5 if family == "sentencepiece" else 9)
    assert vocabulary.answer_ids == {vocabulary.eos_id, vocabulary.tool_calls_id}
    assert len(vocabulary) == (32768 if family == "sentencepiece" else 131072)
    assert all((i in vocabulary.control_ids) == (not p) for i, p in enumerate(vocabulary.pieces))


def called(call_id: str, result_id: str, arguments: str = "{}") -> Conversation:
    return Conversation(
        (
            Message("user", (Text("weather?"),)),
            Message("assistant", (), (ToolCall(call_id, "weather", arguments),)),
            Message("tool", (Text("rain"),), (), result_id),
        )
    )


def test_openai_ids_become_nine_letters_the_same_in_call_and_result(tokenizer):
    ids = tokenizer.encode(called("call_abc123", "call_abc123"), []).token_ids
    text = TextStream(tokenizer.vocabulary).push(ids)
    told = re.findall(r"\b(?!arguments|weather)[0-9a-zA-Z]{9}\b", text)
    assert len(told) == 2
    assert told[0] == told[1]
    assert ids == tokenizer.encode(called(told[0], told[0]), []).token_ids
    other = tokenizer.encode(called("call_abc124", "call_abc124"), []).token_ids
    assert told[0] not in TextStream(tokenizer.vocabulary).push(other)


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


def folder_with(path: Path, **files: str) -> Path:
    for name, source in files.items():
        if source:
            shutil.copyfile(DATA / source, path / name)
        else:
            (path / name).write_text(json.dumps({}))
    return path


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("tokenizer.model.v7m1", "sentencepiece"),
        ("mistral_instruct_tokenizer_241114.model.v7m1", "sentencepiece"),
        ("tekken.json", "tekken"),
    ],
)
def test_the_tokenizer_of_a_folder_is_found(tmp_path, name, family):
    files = {name: FILES[family], "tokenizer.json": "", "config.json": "", "tokenizer.model": ""}
    assert Tokenizer.from_folder(folder_with(tmp_path, **files)).family == family


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer.json": ""}, "add tekken.json .* or tokenizer.model.v7m1"),
        ({"tokenizer.model.v7": FILES["sentencepiece"]}, "name it tokenizer.model.v7m1"),
        ({"tokenizer.model.v7m1": "", "tekken.json": ""}, "several tokenizers"),
        ({"tekken.json": "tekken_240718.json"}, "no picture settings"),
        ({"tekken.json": ""}, "no readable tokenizer"),
        ({"tokenizer.model.v7m1": ""}, "no readable tokenizer"),
    ],
)
def test_a_folder_without_a_usable_tokenizer_says_what_to_do(tmp_path, files, message):
    with pytest.raises(ModelConfigError, match=message):
        Tokenizer.from_folder(folder_with(tmp_path, **files))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ModelConfigError, match="nowhere cannot be read"):
        Tokenizer.from_folder(tmp_path / "nowhere")
