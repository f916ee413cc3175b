"""From the body's sampling fields to the engine's ``Sampling``; says how many tokens may come."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from serve_app.config import Model
from serve_app.errors import InvalidRequest
from serve_app.gateway.chat_body import ChatBody
from shards.errors import RequestError
from shards.request import SEED_LIMIT, Sampling

T = TypeVar("T")
# A bias of -100 keeps any token from being drawn.
_FORBIDDEN = -100.0
_TOKEN_ID = re.compile(r"[0-9]{1,9}")


def sampling_of(
    body: ChatBody, model: Model, max_choices: int, vocabulary_size: int, tool_calls_id: int
) -> Sampling:
    """Everything but the room left in the context, which ``with_room`` settles once known.

    Raises:
        InvalidRequest, RequestError: naming the field as the caller spelled it.
    """
    if body.n > max_choices:
        raise InvalidRequest(f"n must be between 1 and {max_choices}, not {body.n}", param="n")
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("needs logprobs: true", param="top_logprobs")
    seed = _either("seed", body.seed, "random_seed", body.random_seed)
    bias = _logit_bias(body.logit_bias or {}, vocabulary_size)
    if body.tools and body.tool_choice.type == "none":
        bias = {**bias, tool_calls_id: _FORBIDDEN}
    try:
        return Sampling(
            seed=secrets.randbelow(SEED_LIMIT) if seed is None else seed,
            max_tokens=_given(asked_max_tokens(body), max(model.default_max_tokens, 1)),
            min_tokens=body.min_tokens or 0,
            temperature=_given(body.temperature, model.default_temperature),
            top_p=_given(body.top_p, 1.0),
            top_k=body.top_k or 0,
            min_p=body.min_p or 0.0,
            repetition_penalty=_given(body.repetition_penalty, 1.0),
            presence_penalty=body.presence_penalty or 0.0,
            frequency_penalty=body.frequency_penalty or 0.0,
            logit_bias=tuple(bias.items()),
            stop=tuple(body.stop),
            ignore_eos=body.ignore_eos,
            logprobs=(body.top_logprobs or 0) if body.logprobs else None,
            n=body.n,
        )
    except RequestError as error:
        raise InvalidRequest(error.message, param=_as_spelled(error.param, body)) from error


def with_room(sampling: Sampling, body: ChatBody, prompt_tokens: int, context: int) -> Sampling:
    """``sampling`` with the ``max_tokens`` that fit behind the prompt.

    Raises:
        InvalidRequest: ``context_length_exceeded``, with the numbers.
    """
    room = context - prompt_tokens
    if room < 1:
        raise InvalidRequest(
            f"the prompt has {prompt_tokens} tokens, which leaves no room for an answer in the "
            f"context of {context}",
            param="messages",
            code="context_length_exceeded",
        )
    if asked_max_tokens(body) is None:
        return replace(sampling, max_tokens=min(sampling.max_tokens, room))
    if sampling.max_tokens > room:
        spelled = _as_spelled("max_tokens", body)
        raise InvalidRequest(
            f"{prompt_tokens} prompt tokens and {spelled} {sampling.max_tokens} together exceed "
            f"the context of {context}; at most {room} fit",
            param=spelled,
            code="context_length_exceeded",
        )
    return sampling


def asked_max_tokens(body: ChatBody) -> int | None:
    return _either(
        "max_completion_tokens", body.max_completion_tokens, "max_tokens", body.max_tokens
    )


def _either(name: str, value: T | None, other_name: str, other: T | None) -> T | None:
    """The one given of two spellings; giving both is fine while they agree."""
    if value is not None and other is not None and value != other:
        raise InvalidRequest(f"{name} and {other_name} are two names for one value", param=name)
    return other if value is None else value


def _given(value: T | None, default: T) -> T:
    return default if value is None else value


def _as_spelled(param: str, body: ChatBody) -> str:
    if param == "max_tokens" and body.max_tokens is None:
        return "max_completion_tokens"
    if param == "seed" and body.seed is None:
        return "random_seed"
    return param


def _logit_bias(biases: Mapping[str, float], vocabulary_size: int) -> dict[int, float]:
    by_id = {}
    for token, bias in biases.items():
        if not (_TOKEN_ID.fullmatch(token) and int(token) < vocabulary_size):
            raise InvalidRequest(
                f"'{token[:20]}' is not a token id below {vocabulary_size}", param="logit_bias"
            )
        by_id[int(token)] = bias
    return by_id
