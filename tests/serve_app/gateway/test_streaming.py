"""Streams on the wire: framing, pings, failures half way, and clients that hang up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2
import openai
import pytest

from serve_app.errors import GenerationFailed, Overloaded
from shards.errors import GroupError
from shards.request import FinishReason
from tests.serve_app.gateway.client_cases import QUESTION, Endpoint
from tests.serve_app.gateway.conftest import Gateway

LONG = {"max_tokens": 1500, "ignore_eos": True}


def events_of(answer: httpx2.Response) -> list[Any]:
    """The data of each event, parsed; [DONE] as it is."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = answer.text.split("\n\n")
    assert blocks[-1] == ""
    data = [block.removeprefix("data: ") for block in blocks[:-1] if block.startswith("data: ")]
    return [item if item == "[DONE]" else json.loads(item) for item in data]


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)


def test_a_stream_with_usage_on_the_wire(gateway) -> None:
    gateway.tiers.say("Hello there")
    answer = gateway.endpoint.chat(stream=True, stream_options={"include_usage": True})
    *chunks, last, done = events_of(answer)
    assert done == "[DONE]"
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(gateway.tiers.reply) + 1
    for chunk in chunks:
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["usage"] is None
        assert "finish_reason" in chunk["choices"][0]
        assert chunk["choices"][0]["logprobs"] is None
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert all("role" not in chunk["choices"][0]["delta"] for chunk in chunks[1:])
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text == "Hello there"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_stream_without_usage_says_nothing_of_it(gateway) -> None:
    chunks = events_of(gateway.endpoint.chat(stream=True, max_tokens=3))[:-1]
    assert not any("usage" in chunk for chunk in chunks)


def test_usage_rides_on_mistral_s_last_chunk(gateway) -> None:
    answer = gateway.endpoint.chat("/mistral/v1", stream=True, n=2, max_tokens=4)
    *chunks, done = events_of(answer)
    assert done == "[DONE]"
    assert [index for index, chunk in enumerate(chunks) if chunk.get("usage")] == [len(chunks) - 1]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["usage"]["completion_tokens"] == 8


def test_characters_of_several_tokens_are_never_shown_in_parts(gateway) -> None:
    text = "ein 😀 und 漢字\u2028\x85 fertig"
    gateway.tiers.say(text)
    chunks = events_of(gateway.endpoint.chat(stream=True, max_tokens=60))[:-1]
    shown = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
    assert "".join(shown) == text
    assert "\ufffd" not in "".join(shown)


def test_every_choice_opens_with_the_role_and_ends(gateway) -> None:
    chunks = events_of(gateway.endpoint.chat(stream=True, n=3, max_tokens=3))[:-1]
    for index in range(3):
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == index]
        assert own[0]["delta"]["role"] == "assistant"
        assert [step["finish_reason"] for step in own if step["finish_reason"]] == ["length"]


def test_logprobs_arrive_with_their_tokens(gateway) -> None:
    gateway.tiers.say("one two three")
    answer = gateway.endpoint.chat(stream=True, logprobs=True, top_logprobs=1)
    chunks = events_of(answer)[:-1]
    tokens = [
        entry["token_id"]
        for chunk in chunks
        for entry in chunk["choices"][0]["logprobs"]["content"] or ()
    ]
    # The end-of-sequence token is no content.
    assert tuple(tokens) == gateway.tiers.reply


def test_silence_is_filled_with_comments(serve) -> None:
    gateway = serve(gateway={"ping_interval_s": 0.05})
    gateway.tiers.step_delay_s = 0.3
    answer = gateway.endpoint.chat(stream=True, max_tokens=3)
    assert ": ping\n\n" in answer.text
    assert events_of(answer)[-1] == "[DONE]"
    gateway.tiers.step_delay_s = 0.2
    chunks = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model, messages=QUESTION, max_tokens=3, stream=True
    )
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"


@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_before_the_first_token_is_a_real_status(gateway, stream: bool) -> None:
    gateway.tiers.generate_error = Overloaded("all groups are busy")
    with pytest.raises(openai.InternalServerError) as caught:
        gateway.endpoint.openai().chat.completions.create(
            model=gateway.endpoint.model, messages=QUESTION, stream=stream
        )
    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.response.headers["x-should-retry"] == "true"
    assert "busy" in caught.value.message
    eventually(lambda: len(gateway.tiers.closed) == 1)


def test_a_failure_mid_stream_is_raised_by_openai_s_client(gateway) -> None:
    gateway.tiers.generate_error = GroupError("rank 1 of 4 lost its group")
    gateway.tiers.items = 3
    stream = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model, messages=QUESTION, stream=True, max_tokens=50
    )
    chunks = []
    with pytest.raises(openai.APIError, match="failed while answering"):
        chunks.extend(stream)
    eventually(lambda: len(gateway.tiers.closed) == 1)


def test_a_failure_mid_stream_is_a_finish_reason_to_mistral_s_client(gateway) -> None:
    gateway.tiers.generate_error = GenerationFailed("the group was lost")
    gateway.tiers.items = 3
    events = list(
        gateway.endpoint.mistral().chat.stream(
            model=gateway.endpoint.model, messages=QUESTION, max_tokens=50
        )
    )
    assert [event.data.choices[0].finish_reason for event in events] == [None] * (
        len(events) - 1
    ) + ["error"]


def test_a_broken_stream_ends_with_one_error_chunk_for_all_open_choices(gateway) -> None:
    gateway.tiers.generate_error = RuntimeError("prompt: my secret")
    gateway.tiers.items = 2
    answer = gateway.endpoint.chat(stream=True, n=2, max_tokens=50)
    *rest, last, done = events_of(answer)
    assert [choice["finish_reason"] for choice in last["choices"]] == ["error", "error"]
    assert last["error"]["type"] == "server_error"
    assert not any("error" in event for event in rest)
    assert done == "[DONE]"
    assert "secret" not in answer.text


def test_a_failure_half_way_fails_a_whole_answer(gateway) -> None:
    gateway.tiers.generate_error = GenerationFailed("the group was lost")
    gateway.tiers.items = 3
    answer = gateway.endpoint.chat(max_tokens=50)
    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "generation_failed"


def test_deltas_that_end_too_soon_are_a_failure(gateway, monkeypatch) -> None:
    tiers = gateway.tiers
    whole = tiers.generate

    async def cut_short(request, prompt):
        async for deltas in whole(request, prompt):
            yield deltas
            return

    monkeypatch.setattr(tiers, "generate", cut_short)
    assert gateway.endpoint.chat(max_tokens=50).status_code == 502
    *_, last, done = events_of(gateway.endpoint.chat(stream=True, max_tokens=50))
    assert done == "[DONE]"
    assert "before it was complete" in last["error"]["message"]


def test_an_aborted_choice_is_no_success(gateway, monkeypatch) -> None:
    whole = gateway.tiers.generate

    async def aborting(request, prompt):
        async for (delta,) in whole(request, prompt):
            yield (replace(delta, finish_reason=FinishReason.ABORT),)

    monkeypatch.setattr(gateway.tiers, "generate", aborting)
    assert gateway.endpoint.chat(max_tokens=5).status_code == 502


def blocks_in_use(gateway: Gateway) -> int:
    stats = gateway.tiers.engine.stats()
    return stats.blocks_total - stats.blocks_free


def test_hanging_up_mid_stream_frees_the_engine(gateway) -> None:
    gateway.tiers.step_delay_s = 0.01
    stream = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model, messages=QUESTION, stream=True, extra_body=LONG
    )
    next(iter(stream))
    assert blocks_in_use(gateway) > 0
    stream.close()
    eventually(lambda: blocks_in_use(gateway) == 0)
    eventually(lambda: len(gateway.tiers.closed) == 1)
    assert gateway.tiers.engine.stats().generated_tokens_total < 1000


def test_hanging_up_on_a_silent_stream_frees_the_engine(gateway) -> None:
    gateway.tiers.hangs, gateway.tiers.items = True, 1
    stream = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model, messages=QUESTION, stream=True, extra_body=LONG
    )
    next(iter(stream))
    stream.close()
    eventually(lambda: len(gateway.tiers.closed) == 1)
    assert blocks_in_use(gateway) == 0


@pytest.mark.parametrize("stream", [True, False])
def test_hanging_up_before_the_first_token_frees_the_engine(gateway, stream: bool) -> None:
    gateway.tiers.hangs = True
    with pytest.raises(openai.APITimeoutError):
        gateway.endpoint.openai(timeout=0.3).chat.completions.create(
            model=gateway.endpoint.model, messages=QUESTION, stream=stream, extra_body=LONG
        )
    eventually(lambda: len(gateway.tiers.closed) == 1)
    assert blocks_in_use(gateway) == 0


def test_hanging_up_on_a_whole_answer_frees_the_engine(gateway) -> None:
    gateway.tiers.hangs, gateway.tiers.items = True, 2
    with pytest.raises(openai.APITimeoutError):
        gateway.endpoint.openai(timeout=0.3).chat.completions.create(
            model=gateway.endpoint.model, messages=QUESTION, extra_body=LONG
        )
    eventually(lambda: len(gateway.tiers.closed) == 1)
    assert blocks_in_use(gateway) == 0


def test_a_finished_generator_is_closed_too(endpoint: Endpoint, gateway) -> None:
    events_of(endpoint.chat(stream=True, max_tokens=2))
    endpoint.chat(max_tokens=2)
    eventually(lambda: len(gateway.tiers.closed) == 2)
