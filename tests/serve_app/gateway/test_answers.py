"""Tool calls, prefixes and finish reasons, as the clients see them."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.gateway.choice import ChoiceReader, Finish, ReadingRules
from shards.request import Delta, FinishReason, TokenLogprob
from shards.tool_calls import is_tool_call_id
from tests.serve_app.gateway.client_cases import QUESTION, WEATHER
from tests.serve_app.gateway.conftest import Gateway
from tests.shards.spelling import spell

CALLS = (
    '[{"name": "weather", "arguments": {"city": "Paris"}}, {"name": "weather", "arguments": {}}]'
)


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
    call, other = choice.message.tool_calls
    assert is_tool_call_id(call.id)
    assert is_tool_call_id(other.id)
    assert call.id != other.id
    assert call.type == "function"
    assert call.function.name == "weather"
    assert call.function.arguments == '{"city": "Paris"}'
    assert other.function.arguments == "{}"


def test_tool_calls_are_streamed_while_they_are_written(calling: Gateway) -> None:
    endpoint = calling.endpoint
    chunks = list(
        endpoint.openai().chat.completions.create(
            model=endpoint.model, messages=QUESTION, tools=[WEATHER], stream=True
        )
    )
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or ()]
    first = [part for part in parts if part.index == 0]
    assert len(first) > 2
    assert is_tool_call_id(first[0].id or "")
    assert (first[0].type, first[0].function.name) == ("function", "weather")
    assert not any(part.id or part.type or part.function.name for part in first[1:])
    assert "".join(part.function.arguments for part in first) == '{"city": "Paris"}'
    assert [part.index for part in parts] == sorted(part.index for part in parts)
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)


def test_openai_s_helper_puts_streamed_calls_together(calling: Gateway) -> None:
    endpoint = calling.endpoint
    with endpoint.openai().chat.completions.stream(
        model=endpoint.model, messages=QUESTION, tools=[WEATHER]
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        [choice] = stream.get_final_completion().choices
    assert [event.name for event in done] == ["weather", "weather"]
    assert choice.message.content is None
    assert [call.function.arguments for call in choice.message.tool_calls or ()] == [
        '{"city": "Paris"}',
        "{}",
    ]
    assert choice.finish_reason == "tool_calls"


def test_a_stream_and_a_body_say_the_same_calls(calling: Gateway) -> None:
    endpoint = calling.endpoint
    for limit in (None, 8, 12, 16, 20):
        asked: Any = {
            "model": endpoint.model, "messages": QUESTION, "tools": [WEATHER], "max_tokens": limit
        }  # fmt: skip
        whole = endpoint.openai().chat.completions.create(**asked).choices[0]
        with endpoint.openai().chat.completions.stream(**asked) as stream:
            for _ in stream:
                pass
            streamed = stream.current_completion_snapshot.choices[0]
        assert streamed.finish_reason == whole.finish_reason
        assert (streamed.message.content or "") == (whole.message.content or "")
        assert [call.function.arguments for call in streamed.message.tool_calls or ()] == [
            call.function.arguments for call in whole.message.tool_calls or ()
        ]


def test_tool_calls_come_to_mistral_s_client(calling: Gateway) -> None:
    endpoint = calling.endpoint
    asked: Any = {"model": endpoint.model, "messages": QUESTION, "tools": [WEATHER]}
    whole = endpoint.mistral().chat.complete(**asked).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.tool_calls
    assert whole.message.tool_calls[0].function.name == "weather"
    steps = [event.data.choices[0] for event in endpoint.mistral().chat.stream(**asked)]
    calls = [call for step in steps for call in step.delta.tool_calls or ()]
    assert [(call.index, call.function.arguments) for call in calls] == [
        (0, '{"city": "Paris"}'),
        (1, "{}"),
    ]
    assert all(is_tool_call_id(call.id or "") for call in calls)
    # Whole, but as soon as each is.
    assert steps[-1].finish_reason == "tool_calls"
    assert not steps[-1].delta.tool_calls


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
        *(
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
            for call in message.tool_calls
        ),
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


def test_calls_cut_off_before_one_has_begun_are_shown_as_text(calling: Gateway) -> None:
    choice = calling.endpoint.chat(tools=[WEATHER], max_tokens=5).json()["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"]
    assert "tool_calls" not in choice["message"]


def test_a_call_cut_off_by_the_limit_is_shown_as_far_as_it_came(calling: Gateway) -> None:
    for prefix in ("/v1", "/mistral/v1"):
        choice = calling.endpoint.chat(prefix, tools=[WEATHER], max_tokens=18).json()["choices"][0]
        assert choice["finish_reason"] == "length"
        [call] = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        assert '{"city": "Paris"}'.startswith(call["function"]["arguments"])
        assert not choice["message"]["content"]


def test_logprobs_are_shown_of_what_is_no_call(tokenizer) -> None:
    vocabulary = tokenizer.vocabulary
    for text, is_text in (('[{"name" oops', True), (CALLS, False)):
        ids = (vocabulary.tool_calls_id, *spell(text, vocabulary))
        reader = ChoiceReader(0, ReadingRules("r", vocabulary, offers_tools=True))
        pieces = [
            reader.read(Delta("r", 0, (i,), 3, 1, logprobs=(TokenLogprob(i, -1.0),))) for i in ids
        ]
        pieces.append(reader.read(Delta("r", 0, (vocabulary.eos_id,), 3, 1, FinishReason.STOP)))
        shown = [entry.token_id for piece in pieces for entry in piece.logprobs]
        assert shown == (list(ids[1:]) if is_text else [])


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
    assert [call.name for call in first.tool_calls] == ["weather", "weather"]
    end = Delta("r", 0, (vocabulary.eos_id,), 3, len(ids) + 1, FinishReason.STOP)
    last = reader.read(end)
    assert not last.tool_calls
    assert last.finish is Finish.TOOL_CALLS
    assert not last.text
