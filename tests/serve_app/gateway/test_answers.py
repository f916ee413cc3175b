"""Tool calls, prefixes and finish reasons, as the clients see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.gateway.choice import ChoiceReader, Finish, ReadingRules
from shards.request import Delta, FinishReason, TokenLogprob
from tests.serve_app.gateway.client_cases import QUESTION, WEATHER
from tests.serve_app.gateway.conftest import Gateway
from tests.serve_app.gateway.engine_tiers import spell

CALLS = '[{"name": "weather", "arguments": {"city": "Paris"}, "id": "a1B2c3D4e"}]'


@pytest.fixture
def calling(gateway: Gateway, tokenizer) -> Gateway:
    gateway.tiers.say(CALLS, tokenizer.vocabulary.tool_calls_id)
    return gateway


def test_tool_calls_come_whole_to_openai_s_client(calling: Gateway) -> None:
    endpoint = calling.endpoint
    answer = endpoint.openai().chat.completions.create(
        model=endpoint.model, messages=QUESTION, tools=[WEATHER]
    )
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    [call] = choice.message.tool_calls
    assert (call.id, call.type) == ("a1B2c3D4e", "function")
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}


def test_tool_calls_are_one_delta_of_a_stream(calling: Gateway) -> None:
    endpoint = calling.endpoint
    chunks = list(
        endpoint.openai().chat.completions.create(
            model=endpoint.model, messages=QUESTION, tools=[WEATHER], stream=True
        )
    )
    with_calls = [chunk for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert len(with_calls) == 1
    [call] = with_calls[0].choices[0].delta.tool_calls
    assert call.index == 0
    assert json.loads(call.function.arguments or "") == {"city": "Paris"}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_tool_calls_come_to_mistral_s_client(calling: Gateway) -> None:
    endpoint = calling.endpoint
    asked: Any = {"model": endpoint.model, "messages": QUESTION, "tools": [WEATHER]}
    whole = endpoint.mistral().chat.complete(**asked).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls
    assert whole.message.tool_calls[0].function.name == "weather"
    *_, last = endpoint.mistral().chat.stream(**asked)
    assert last.data.choices[0].delta.tool_calls


def test_a_tool_conversation_goes_round(calling: Gateway) -> None:
    endpoint = calling.endpoint
    client = endpoint.openai()
    message = (
        client.chat.completions.create(model=endpoint.model, messages=QUESTION, tools=[WEATHER])
        .choices[0]
        .message
    )
    calling.tiers.say("It is sunny.")
    messages: Any = [
        *QUESTION,
        message,
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"},
    ]
    answer = client.chat.completions.create(
        model=endpoint.model, messages=messages, tools=[WEATHER]
    )
    assert answer.choices[0].message.content == "It is sunny."
    assert answer.choices[0].finish_reason == "stop"


def test_calls_that_are_no_json_are_shown_as_text(gateway: Gateway, tokenizer) -> None:
    gateway.tiers.say('[{"name": oops', tokenizer.vocabulary.tool_calls_id)
    choice = gateway.endpoint.chat(tools=[WEATHER]).json()["choices"][0]
    assert choice["message"]["content"].strip() == '[{"name": oops'
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"


def test_calls_cut_off_by_the_limit_are_shown_as_text(calling: Gateway) -> None:
    choice = calling.endpoint.chat(tools=[WEATHER], max_tokens=5).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"]


def test_without_tools_the_call_token_means_nothing(calling: Gateway) -> None:
    choice = calling.endpoint.chat().json()["choices"][0]
    assert choice["message"]["content"].strip() == CALLS
    assert choice["finish_reason"] == "stop"


def test_a_prefix_begins_the_answer(gateway: Gateway) -> None:
    gateway.tiers.say("Sir or Madam")
    messages = [*QUESTION, {"role": "assistant", "content": "Dear", "prefix": True}]
    endpoint = gateway.endpoint
    answer = endpoint.mistral().chat.complete(model=endpoint.model, messages=messages)
    assert answer.choices[0].message.content == "Dear Sir or Madam"
    chunks = list(endpoint.mistral().chat.stream(model=endpoint.model, messages=messages))
    text = "".join(str(chunk.data.choices[0].delta.content or "") for chunk in chunks)
    assert text == "Dear Sir or Madam"


def test_a_full_context_is_called_so_by_mistral_only(gateway: Gateway) -> None:
    long_question = [{"role": "user", "content": "word " * 1980}]
    fields: Any = {"messages": long_question, "ignore_eos": True}
    by_mistral = gateway.endpoint.chat("/mistral/v1", **fields).json()
    by_openai = gateway.endpoint.chat(**fields).json()
    assert by_mistral["usage"]["total_tokens"] == 2048
    assert by_mistral["choices"][0]["finish_reason"] == "model_length"
    assert by_openai["choices"][0]["finish_reason"] == "length"


def test_the_stop_token_has_no_logprob_among_the_content(tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    ids = (*spell("yes", vocabulary), vocabulary.eos_id)
    logprobs = tuple(TokenLogprob(token_id, -1.0) for token_id in ids)
    end = Delta("r", 0, ids, 3, len(ids), FinishReason.STOP, logprobs, stop=vocabulary.eos_id)
    piece = ChoiceReader(0, ReadingRules("r", vocabulary)).read(end)
    assert piece.text == "yes"
    assert piece.logprobs == logprobs[:-1]


def test_a_call_may_begin_anywhere_in_a_delta(tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    ids = (*spell("ok", vocabulary), vocabulary.tool_calls_id, *spell(CALLS, vocabulary))
    logprobs = tuple(TokenLogprob(token_id, -1.0) for token_id in ids)
    reader = ChoiceReader(0, ReadingRules("r", vocabulary, offers_tools=True))
    first = reader.read(Delta("r", 0, ids, 3, len(ids), logprobs=logprobs))
    assert first.text == "ok"
    assert first.logprobs == logprobs[: len(spell("ok", vocabulary))]
    end = Delta("r", 0, (vocabulary.eos_id,), 3, len(ids) + 1, FinishReason.STOP)
    last = reader.read(end)
    assert [call.name for call in last.tool_calls] == ["weather"]
    assert last.finish is Finish.TOOL_CALLS
    assert not last.text
