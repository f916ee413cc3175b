"""What the official clients must be able to do, wherever the API runs.

Subclasses give an ``endpoint`` fixture: the in-process application here, a running system in
tests/e2e. Nothing may be assumed of what the model says.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import httpx2
import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import HTTPValidationError, SDKError
from mistralai.client.models import BaseModelCard
from PIL import Image

from shards.grid import patch_grid

QUESTION: Any = [{"role": "user", "content": "What is in this picture?"}]


@dataclass(frozen=True)
class Endpoint:
    """Where the API is. Clients come untyped: what counts is what they make of the wire."""

    url: str
    api_key: str
    model: str

    def openai(self, **options: Any) -> Any:
        http = openai.DefaultHttpxClient(verify=False)
        options = {"api_key": self.api_key, "max_retries": 0, "timeout": 60, **options}
        return openai.OpenAI(base_url=f"{self.url}/v1", http_client=http, **options)

    def async_openai(self) -> Any:
        return openai.AsyncOpenAI(
            base_url=f"{self.url}/v1", api_key=self.api_key, max_retries=0, timeout=60
        )

    def mistral(self, **options: Any) -> Any:
        http = httpx2.Client(verify=False, timeout=60)
        options = {"api_key": self.api_key, **options}
        return Mistral(server_url=f"{self.url}/mistral", client=http, **options)

    def get(self, path: str, **options: Any) -> httpx2.Response:
        """Without a key."""
        return httpx2.get(self.url + path, timeout=60, verify=False, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self.api_key}"} | options.pop("headers", {})
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        return httpx2.post(
            self.url + path,
            content=content,
            headers=headers,
            verify=False,
            **{"timeout": 60, **options},
        )

    def chat(self, path: str = "/v1", /, **fields: Any) -> httpx2.Response:
        body = {"model": self.model, "messages": QUESTION, **fields}
        return self.post(f"{path}/chat/completions", body)


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(file, kind)
    return file.getvalue()


def data_url(width: int, height: int, kind: str = "PNG") -> str:
    encoded = base64.b64encode(picture(width, height, kind)).decode()
    return f"data:image/{kind.lower()};base64,{encoded}"


def image_part(width: int, height: int, kind: str = "PNG") -> Any:
    return {"type": "image_url", "image_url": {"url": data_url(width, height, kind)}}


def text_part(text: str) -> Any:
    return {"type": "text", "text": text}


def tokens_of(*sizes: tuple[int, int]) -> int:
    return sum(patch_grid(*size).tokens for size in sizes)


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


class ClientCases:
    """See the module."""

    def test_openai_answers_in_whole(self, endpoint: Endpoint) -> None:
        raw = endpoint.openai().chat.completions.with_raw_response.create(
            model=endpoint.model,
            messages=QUESTION,
            max_completion_tokens=6,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
        answer = raw.parse()
        assert answer.object == "chat.completion"
        assert answer.model == endpoint.model
        [choice] = answer.choices
        assert choice.finish_reason == "length"
        assert choice.message.role == "assistant"
        assert isinstance(choice.message.content, str)
        assert answer.usage.completion_tokens == 6
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6
        details = answer.usage.prompt_tokens_details
        assert (details.image_tokens, details.cached_tokens) == (0, 0)
        assert details.text_tokens == answer.usage.prompt_tokens
        assert raw.headers["x-request-cost-usd"] == answer.usage.cost["total"]
        assert raw.headers["x-request-id"].replace("-", "") in answer.id
        assert int(raw.headers["openai-processing-ms"]) >= 0

    def test_the_cost_is_tokens_times_the_listed_price(self, endpoint: Endpoint) -> None:
        client = endpoint.openai()
        price = client.models.retrieve(endpoint.model).pricing
        usage = client.chat.completions.create(
            model=endpoint.model, messages=QUESTION, max_tokens=5, extra_body={"ignore_eos": True}
        ).usage
        million = 1_000_000
        spent = usage.prompt_tokens * Decimal(price["input_per_million_tokens"]) / million
        assert Decimal(usage.cost["input"]) == spent
        earned = 5 * Decimal(price["output_per_million_tokens"]) / million
        assert Decimal(usage.cost["output"]) == earned
        assert Decimal(usage.cost["total"]) == spent + earned
        assert usage.cost["currency"] == "USD"

    def test_openai_streams_the_same_answer(self, endpoint: Endpoint) -> None:
        fields: Any = {
            "model": endpoint.model,
            "messages": QUESTION,
            "max_tokens": 12,
            "temperature": 0,
            "seed": 2,
            "extra_body": {"ignore_eos": True},
        }
        client = endpoint.openai()
        whole = client.chat.completions.create(**fields)
        chunks = list(
            client.chat.completions.create(
                **fields, stream=True, stream_options={"include_usage": True}
            )
        )
        *steps, last = chunks
        assert last.choices == []
        assert last.usage == whole.usage
        assert all(step.usage is None for step in steps)
        assert len({chunk.id for chunk in chunks}) == 1
        assert steps[0].choices[0].delta.role == "assistant"
        text = "".join(step.choices[0].delta.content or "" for step in steps)
        assert text == whole.choices[0].message.content
        reasons = [step.choices[0].finish_reason for step in steps]
        assert reasons == [None] * (len(steps) - 1) + ["length"]

    async def test_openai_streams_asynchronously(self, endpoint: Endpoint) -> None:
        async with endpoint.async_openai() as client:
            stream = await client.chat.completions.create(
                model=endpoint.model,
                messages=QUESTION,
                max_tokens=4,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "length"
        assert not any(chunk.usage for chunk in chunks)

    async def test_streams_at_the_same_time_do_not_mix(self, endpoint: Endpoint) -> None:
        async with endpoint.async_openai() as client:

            async def streamed(seed: int) -> str:
                stream = await client.chat.completions.create(
                    model=endpoint.model, messages=QUESTION, seed=seed, max_tokens=8, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            async def whole(seed: int) -> str:
                answer = await client.chat.completions.create(
                    model=endpoint.model, messages=QUESTION, seed=seed, max_tokens=8
                )
                return str(answer.choices[0].message.content)

            texts = await asyncio.gather(*map(streamed, range(8)), *map(whole, range(8)))
        assert texts[:8] == texts[8:]
        assert len(set(texts)) > 1

    def test_mistral_answers_and_streams_the_same(self, endpoint: Endpoint) -> None:
        fields: Any = {
            "model": endpoint.model,
            "messages": QUESTION,
            "max_tokens": 8,
            "random_seed": 3,
            "temperature": 0,
        }
        client = endpoint.mistral()
        whole = client.chat.complete(**fields)
        events = list(client.chat.stream(**fields))
        chunks = [event.data for event in events]
        text = "".join(str(chunk.choices[0].delta.content or "") for chunk in chunks)
        assert text == whole.choices[0].message.content
        assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
        assert chunks[-1].usage == whole.usage
        assert whole.usage.total_tokens == (
            (whole.usage.prompt_tokens or 0) + (whole.usage.completion_tokens or 0)
        )
        assert all(chunk.usage is None for chunk in chunks[:-1])

    def test_both_clients_get_the_same_text_for_a_seed(self, endpoint: Endpoint) -> None:
        asked: Any = {"model": endpoint.model, "messages": QUESTION, "max_tokens": 8}
        by_openai = endpoint.openai().chat.completions.create(**asked, seed=11)
        by_mistral = endpoint.mistral().chat.complete(**asked, random_seed=11)
        assert by_openai.choices[0].message.content == by_mistral.choices[0].message.content

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
    def test_a_picture_is_counted_exactly(self, endpoint: Endpoint, kind: str) -> None:
        content = [text_part("What is this?"), image_part(40, 56, kind)]
        answer = endpoint.openai().chat.completions.create(
            model=endpoint.model, messages=[{"role": "user", "content": content}], max_tokens=2
        )
        assert answer.usage.prompt_tokens_details.image_tokens == tokens_of((40, 56))

    def test_pictures_stand_between_words_in_any_turn(self, endpoint: Endpoint) -> None:
        messages: Any = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [image_part(32, 32), text_part("and"), image_part(16, 64)]},
            {"role": "assistant", "content": "Two pictures."},
            {"role": "user", "content": [text_part("And"), image_part(48, 16), text_part("this?")]},
        ]
        usage = (
            endpoint.openai()
            .chat.completions.create(model=endpoint.model, messages=messages, max_tokens=2)
            .usage
        )
        details = usage.prompt_tokens_details
        assert details.image_tokens == tokens_of((32, 32), (16, 64), (48, 16))
        assert details.text_tokens == usage.prompt_tokens - details.image_tokens

    def test_mistral_sends_a_picture_as_a_plain_string(self, endpoint: Endpoint) -> None:
        content = [text_part("What?"), {"type": "image_url", "image_url": data_url(33, 17)}]
        answer = endpoint.mistral().chat.complete(
            model=endpoint.model, messages=[{"role": "user", "content": content}], max_tokens=2
        )
        details = answer.usage.additional_properties["prompt_tokens_details"]
        assert details["image_tokens"] == tokens_of((33, 17))

    def test_tokenize_promises_what_the_answer_then_uses(self, endpoint: Endpoint) -> None:
        content = [text_part("How many?"), image_part(50, 50)]
        body = {
            "model": endpoint.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 3,
            "n": 2,
            "ignore_eos": True,
        }
        quote = endpoint.post("/v1/tokenize", body).json()
        usage = endpoint.post("/v1/chat/completions", body).json()["usage"]
        assert quote["prompt_tokens"] == usage["prompt_tokens"]
        assert quote["image_tokens"] == usage["prompt_tokens_details"]["image_tokens"]
        assert quote["text_tokens"] == usage["prompt_tokens_details"]["text_tokens"]
        assert quote["max_completion_tokens"] == usage["completion_tokens"] == 6
        assert quote["quote"]["input"] == usage["cost"]["input"]
        assert quote["quote"]["max_total"] == usage["cost"]["total"]

    def test_choices_differ_and_are_all_counted(self, endpoint: Endpoint) -> None:
        answer = endpoint.openai().chat.completions.create(
            model=endpoint.model,
            messages=QUESTION,
            n=3,
            seed=1,
            temperature=1,
            max_tokens=6,
            extra_body={"ignore_eos": True},
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        assert len({choice.message.content for choice in answer.choices}) > 1
        assert answer.usage.completion_tokens == 18

    def test_a_stop_string_ends_the_answer_and_is_not_shown(self, endpoint: Endpoint) -> None:
        asked: Any = {"model": endpoint.model, "messages": QUESTION, "temperature": 0}
        asked |= {"max_tokens": 12, "seed": 5}
        client = endpoint.openai()
        full = client.chat.completions.create(**asked).choices[0].message.content or ""
        stop = full[len(full) // 2 :][:3]
        cut = client.chat.completions.create(**asked, stop=[stop, "\0never\0"])
        assert cut.choices[0].message.content == full[: full.index(stop)]
        assert cut.choices[0].finish_reason == "stop"

    def test_logprobs_name_each_token(self, endpoint: Endpoint) -> None:
        answer = endpoint.openai().chat.completions.create(
            model=endpoint.model,
            messages=QUESTION,
            max_tokens=4,
            logprobs=True,
            top_logprobs=1,
            extra_body={"ignore_eos": True},
        )
        entries = answer.choices[0].logprobs.content
        assert len(entries) == 4
        for entry in entries:
            assert entry.logprob <= 0
            assert bytes(entry.bytes or ()).decode("utf-8", "replace") == entry.token
            assert len(entry.top_logprobs) == 1

    def test_a_tool_conversation_is_understood(self, endpoint: Endpoint) -> None:
        call: Any = {"id": "call_abc123", "type": "function"}
        call["function"] = {"name": "weather", "arguments": '{"city": "Paris"}'}
        messages: Any = [
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_abc123", "content": "sunny"},
        ]
        answer = endpoint.openai().chat.completions.create(
            model=endpoint.model, messages=messages, tools=[WEATHER], max_tokens=2
        )
        assert answer.usage.prompt_tokens > 20

    def test_models_are_listed_for_both_clients(self, endpoint: Endpoint) -> None:
        [model] = endpoint.openai().models.list().data
        assert model.id == endpoint.model
        cards = endpoint.mistral().models.list().data
        [card] = cards
        assert isinstance(card, BaseModelCard)
        assert card.capabilities.vision
        assert card.capabilities.completion_chat

    def test_a_wrong_value_is_named_to_the_openai_client(self, endpoint: Endpoint) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            endpoint.openai().chat.completions.create(
                model=endpoint.model, messages=QUESTION, top_p=7
            )
        assert caught.value.param == "top_p"
        assert caught.value.type == "invalid_request_error"
        assert "7" in caught.value.message
        assert caught.value.request_id

    def test_an_unknown_model_is_not_found(self, endpoint: Endpoint) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            endpoint.openai().chat.completions.create(model="gpt-4o", messages=QUESTION)
        assert caught.value.code == "model_not_found"

    def test_a_wrong_key_and_no_key_are_told_the_same(self, endpoint: Endpoint) -> None:
        with pytest.raises(openai.AuthenticationError) as wrong:
            endpoint.openai(api_key="sk-wrong").models.list()
        missing = endpoint.get("/v1/models")
        assert missing.status_code == 401
        assert missing.json()["error"] == wrong.value.body
        with pytest.raises(SDKError) as mistral:
            endpoint.mistral(api_key="sk-wrong").chat.complete(
                model=endpoint.model, messages=QUESTION
            )
        assert mistral.value.status_code == 401

    def test_a_malformed_body_is_a_validation_error_to_mistral(self, endpoint: Endpoint) -> None:
        with pytest.raises(HTTPValidationError) as caught:
            endpoint.mistral().chat.complete(
                model=endpoint.model, messages=QUESTION, stop=["x"] * 99
            )
        assert [fault.loc for fault in caught.value.data.detail or ()] == [["stop"]]

    def test_a_refused_feature_is_an_error_to_mistral(self, endpoint: Endpoint) -> None:
        with pytest.raises(SDKError) as caught:
            endpoint.mistral().chat.complete(
                model=endpoint.model, messages=QUESTION, safe_prompt=True
            )
        assert caught.value.status_code == 400
        assert json.loads(caught.value.body)["param"] == "safe_prompt"

    def test_an_answer_longer_than_the_context_is_refused_with_numbers(
        self, endpoint: Endpoint
    ) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            endpoint.openai().chat.completions.create(
                model=endpoint.model, messages=QUESTION, max_tokens=10_000_000
            )
        assert caught.value.code == "context_length_exceeded"
        assert "10000000" in caught.value.message
