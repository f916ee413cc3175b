"""Random conversations of the kinds that clients send, and mistral-common's view of them."""

from __future__ import annotations

import random
from collections.abc import Callable

from mistral_common.protocol.instruct import messages as mistral
from mistral_common.protocol.instruct.chunk import ContentChunk, ImageChunk, TextChunk
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Function, FunctionCall
from mistral_common.protocol.instruct.tool_calls import Tool as MistralTool
from mistral_common.protocol.instruct.tool_calls import ToolCall as MistralToolCall
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from PIL import Image as Pillow

from shards.conversation import Conversation, Image, Message, Text, Tool, ToolCall

DATA = MistralTokenizer._data_path()
FILES = {
    "sentencepiece": "mistral_instruct_tokenizer_241114.model.v7m1",
    "tekken": "tekken_240911.json",
}
WORDS = ["what", "is", "in this", "picture?", "猫", "🙂", "naïve", "e\u0301", "\n\n", " ", "\t"]
WORDS += ["[IMG]", "</s>", "[INST]", "[TOOL_CALLS]", "<0x41>", ""]
SIZES = [(1, 3000), (5000, 7), (1, 1), (16, 16), (17, 33), (1024, 1024), (1025, 3), (300, 200)]


Size = tuple[int, int]


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


def user(*parts: Text | Image) -> Conversation:
    return Conversation((Message("user", parts),))


def called(call_id: str, result_id: str, arguments: str = "{}") -> Conversation:
    return Conversation(
        (
            Message("user", (Text("weather?"),)),
            Message("assistant", (), (ToolCall(call_id, "weather", arguments),)),
            Message("tool", (Text("rain"),), (), result_id),
        )
    )
