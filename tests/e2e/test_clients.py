"""The official clients, unchanged, against the running system."""

import base64
from decimal import Decimal
from pathlib import Path

import openai
import pytest
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

SHAPES = Path(__file__).parent.parent.parent / "ops" / "examples" / "shapes.png"
URL = f"data:image/png;base64,{base64.b64encode(SHAPES.read_bytes()).decode()}"
OPENAI_MESSAGES = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is in this picture?"},
            {"type": "image_url", "image_url": {"url": URL}},
        ],
    }
]
MISTRAL_MESSAGES = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is in this picture?"},
            {"type": "image_url", "image_url": URL},
        ],
    }
]


@pytest.fixture
def openai_client(system):
    with openai.OpenAI(
        base_url=system.up["base_url"], api_key=system.key, max_retries=0, timeout=60
    ) as client:
        yield client


@pytest.fixture
def mistral_client(system):
    with Mistral(
        api_key=system.key, server_url=f"{system.root}/mistral", timeout_ms=60_000
    ) as client:
        yield client


def test_openai_lists_the_model(openai_client, system):
    assert [model.id for model in openai_client.models.list()] == [system.model]


def test_openai_answers_and_streams_the_same(openai_client, system):
    asked = {"model": system.model, "messages": OPENAI_MESSAGES, "max_tokens": 12, "seed": 7}
    whole = openai_client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert 1 < whole.usage.completion_tokens <= 12
    assert whole.usage.prompt_tokens_details.image_tokens == 204
    assert Decimal(whole.usage.cost["total"]) > 0

    chunks = list(
        openai_client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == []
    # The same but for what is cached by now: of 221 tokens all full blocks of 16.
    usage = chunks[-1].usage
    assert usage.prompt_tokens_details.cached_tokens > 200
    assert usage.prompt_tokens_details.image_tokens == 204
    assert usage.total_tokens == whole.usage.total_tokens


def test_openai_meets_typed_errors(openai_client, system):
    with pytest.raises(openai.NotFoundError, match="gpt-4"):
        openai_client.chat.completions.create(model="gpt-4", messages=OPENAI_MESSAGES)
    with pytest.raises(openai.AuthenticationError):
        openai_client.with_options(api_key="sk-wrong").models.list()
    with pytest.raises(openai.BadRequestError) as refusal:
        openai_client.chat.completions.create(
            model=system.model, messages=OPENAI_MESSAGES, temperature=3
        )
    assert refusal.value.param == "temperature"


def test_mistral_answers_and_streams_the_same(mistral_client, system):
    asked = {
        "model": system.model,
        "messages": MISTRAL_MESSAGES,
        "max_tokens": 12,
        "random_seed": 7,
    }
    whole = mistral_client.chat.complete(**asked)
    assert 1 < whole.usage.completion_tokens <= 12
    assert whole.choices[0].finish_reason in ("stop", "length")

    with mistral_client.chat.stream(**asked) as events:
        chunks = [event.data for event in events]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_both_formats_answer_alike(openai_client, mistral_client, system):
    common = {"model": system.model, "max_tokens": 12}
    by_openai = openai_client.chat.completions.create(**common, messages=OPENAI_MESSAGES, seed=7)
    by_mistral = mistral_client.chat.complete(**common, messages=MISTRAL_MESSAGES, random_seed=7)
    assert by_openai.choices[0].message.content == by_mistral.choices[0].message.content


def test_mistral_meets_its_own_errors(mistral_client):
    with pytest.raises(SDKError, match="mistral-tiny"):
        mistral_client.chat.complete(model="mistral-tiny", messages=MISTRAL_MESSAGES)
