"""Sampling fields to the engine's, and the room for an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.config import parse_config
from serve_app.errors import InvalidRequest
from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.fields import Dialect
from serve_app.gateway.sampling import sampling_of, with_room
from serve_app.gateway.validation import parse_chat
from shards.request import Sampling

CONTEXT = 1000
TOOL = {"type": "function", "function": {"name": "f"}}
MODEL = parse_config(
    {"model": {"path": "/m", "default_max_tokens": 100, "default_temperature": 0.3}}
).model


def body_of(**fields: Any) -> ChatBody:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **fields}
    return parse_chat(json.dumps(body).encode(), Dialect.OPENAI)


def sampling(prompt_tokens: int = 10, **fields: Any) -> Sampling:
    body = body_of(**fields)
    drawn = sampling_of(body, MODEL, max_choices=4, vocabulary_size=500, tool_calls_id=5)
    return with_room(drawn, body, prompt_tokens, CONTEXT)


def refused(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        sampling(**fields)
    return caught.value


def test_every_field_reaches_the_engine() -> None:
    assert sampling(
        seed=7,
        max_completion_tokens=50,
        min_tokens=2,
        temperature=1.5,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={"3": 5, "499": -100},
        stop=["a", "b"],
        ignore_eos=True,
        logprobs=True,
        top_logprobs=3,
        n=2,
    ) == Sampling(
        seed=7,
        max_tokens=50,
        min_tokens=2,
        temperature=1.5,
        top_p=0.5,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias=((3, 5.0), (499, -100.0)),
        stop=("a", "b"),
        ignore_eos=True,
        logprobs=3,
        n=2,
    )


def test_defaults_come_from_the_config() -> None:
    drawn = sampling()
    assert (drawn.max_tokens, drawn.temperature, drawn.n) == (100, 0.3, 1)
    assert drawn.logprobs is None
    assert sampling(temperature=0).greedy


def test_a_seed_is_drawn_when_none_is_given() -> None:
    assert sampling().seed != sampling().seed


def test_logprobs_without_alternatives() -> None:
    assert sampling(logprobs=True).logprobs == 0


def test_one_stop_string_is_a_list_of_one() -> None:
    assert sampling(stop="END").stop == ("END",)


def test_tool_choice_none_forbids_the_call_token() -> None:
    assert sampling(tools=[TOOL], tool_choice="none").logit_bias == ((5, -100.0),)
    assert sampling(tools=[TOOL]).logit_bias == ()


def test_the_default_shrinks_to_the_room() -> None:
    assert sampling(prompt_tokens=950).max_tokens == 50


def test_what_was_asked_for_never_shrinks() -> None:
    assert sampling(prompt_tokens=950, max_tokens=50).max_tokens == 50
    error = refused(prompt_tokens=950, max_tokens=51)
    assert (error.param, error.code) == ("max_tokens", "context_length_exceeded")
    assert all(number in error.message for number in ("950", "51", "1000", "50"))


def test_a_prompt_that_fills_the_context_is_refused() -> None:
    error = refused(prompt_tokens=1000)
    assert (error.param, error.code) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"min_p": 1.5}, "min_p"),
        ({"top_k": -1}, "top_k"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": -3}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens"),
        ({"max_completion_tokens": 5000}, "max_completion_tokens"),
        ({"min_tokens": 101}, "min_tokens"),
        ({"seed": -1}, "seed"),
        ({"random_seed": -1}, "random_seed"),
        ({"seed": 1, "random_seed": 2}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 5}, "n"),
        ({"n": 10**9}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"500": 1}}, "logit_bias"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias"),
        ({"logit_bias": {"3": 101}}, "logit_bias"),
    ],
)
def test_a_bad_value_is_named_as_it_was_spelled(fields: Any, param: str) -> None:
    assert refused(**fields).param == param


def test_two_spellings_of_one_value_may_agree() -> None:
    assert sampling(max_tokens=5, max_completion_tokens=5).max_tokens == 5
    assert sampling(seed=3, random_seed=3).seed == 3
