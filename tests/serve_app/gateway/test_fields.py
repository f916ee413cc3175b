"""The field table against the pinned clients' own request types, and against the API."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from mistralai.client.models import (
    ChatCompletionRequest,
    ChatCompletionStreamRequest,
    DocumentURLChunk,
    ImageURL,
    ImageURLChunk,
)
from mistralai.client.models.contentchunk import _CONTENT_CHUNK_VARIANTS
from openai.types.chat import ChatCompletionContentPartParam
from openai.types.chat import chat_completion_content_part_image_param as openai_image_params
from openai.types.chat import completion_create_params as openai_params

from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.content_parts import DocumentPart, ImagePart, ImageUrl
from serve_app.gateway.fields import FIELDS, Dialect, Treatment
from serve_app.gateway.validation import MalformedBody, parse_chat
from tests.serve_app.gateway.client_cases import Endpoint
from tests.serve_app.gateway.conftest import Gateway

OPENAI_FIELDS = set(openai_params.CompletionCreateParamsNonStreaming.__annotations__) | set(
    openai_params.CompletionCreateParamsStreaming.__annotations__
)
MISTRAL_FIELDS = set(ChatCompletionRequest.model_fields) | set(
    ChatCompletionStreamRequest.model_fields
)
VENDOR_FIELDS = {"ignore_eos", "min_tokens", "top_k", "min_p", "repetition_penalty"}

# One value per refused field that asks for what we do not do.
REFUSED_VALUES: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "function_call": "auto",
    "functions": [{"name": "f"}],
    "guardrails": [{"block_on_error": True}],
    "modalities": ["text", "audio"],
    "moderation": {"model": "omni-moderation-latest"},
    "prompt_logprobs": True,
    "top_prompt_logprobs": 3,
    "prompt_mode": "reasoning",
    "reasoning_effort": "high",
    "safe_prompt": True,
    "service_tier": "flex",
    "store": True,
    "verbosity": "low",
    "web_search_options": {},
}
IGNORED_VALUES: dict[str, Any] = {
    "metadata": {"team": "a"},
    "prediction": {"type": "content", "content": "x"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "implicit"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "u1",
    "user": "u1",
}


def with_treatment(treatment: Treatment) -> list[str]:
    return [name for name, field in FIELDS.items() if field.treatment is treatment]


def test_the_table_knows_every_field_of_both_clients_and_no_other() -> None:
    assert set(FIELDS) == OPENAI_FIELDS | MISTRAL_FIELDS | VENDOR_FIELDS


def test_the_table_says_who_speaks_a_field() -> None:
    for name, field in FIELDS.items():
        assert (Dialect.OPENAI in field.spoken_by) == (name in OPENAI_FIELDS), name
        assert (Dialect.MISTRAL in field.spoken_by) == (name in MISTRAL_FIELDS), name


def test_exactly_the_honoured_fields_are_read() -> None:
    assert set(ChatBody.model_fields) == set(with_treatment(Treatment.HONOURED))


def test_every_refusal_and_every_neglect_says_why() -> None:
    assert all(FIELDS[name].why for name in with_treatment(Treatment.REFUSED))
    assert all(FIELDS[name].why for name in with_treatment(Treatment.IGNORED))


def test_each_refused_field_is_a_400_that_names_it(endpoint: Endpoint) -> None:
    assert set(REFUSED_VALUES) == set(with_treatment(Treatment.REFUSED))
    for name, value in REFUSED_VALUES.items():
        answer = endpoint.chat(**{name: value})
        assert answer.status_code == 400, name
        assert answer.json()["error"]["param"] == name
        assert name in answer.json()["error"]["message"]


def test_each_ignored_field_changes_nothing(endpoint: Endpoint) -> None:
    assert set(IGNORED_VALUES) == set(with_treatment(Treatment.IGNORED))
    plain = endpoint.chat(seed=1, max_tokens=4).json()["choices"]
    assert endpoint.chat(seed=1, max_tokens=4, **IGNORED_VALUES).json()["choices"] == plain


def test_neutral_values_and_nulls_of_refused_fields_pass(endpoint: Endpoint) -> None:
    neutral = {name: FIELDS[name].neutral for name in with_treatment(Treatment.REFUSED)}
    fields = {name: values[0] if values else None for name, values in neutral.items()}
    assert endpoint.chat(max_tokens=1, **fields).status_code == 200


def test_zero_is_not_a_neutral_false(endpoint: Endpoint) -> None:
    assert endpoint.chat(store=0).status_code == 400


@pytest.mark.parametrize("name", sorted(OPENAI_FIELDS - MISTRAL_FIELDS))
def test_the_strict_mistral_route_knows_none_of_openai_s_own_fields(name: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        parse_chat(b'{"model": "m", "messages": [], "%s": 1}' % name.encode(), Dialect.MISTRAL)
    assert caught.value.param == name


def test_the_openai_route_takes_mistral_s_spellings(gateway: Gateway) -> None:
    answer = gateway.endpoint.chat(random_seed=77, max_tokens=1, top_k=5, min_tokens=1)
    assert answer.status_code == 200
    sampling = gateway.tiers.requests[-1].sampling
    assert (sampling.seed, sampling.top_k, sampling.min_tokens) == (77, 5, 1)


def test_the_parts_know_every_field_of_both_clients_and_few_more() -> None:
    openai_image = set(openai_image_params.ImageURL.__annotations__)
    assert set(ImageUrl.model_fields) == openai_image | set(ImageURL.model_fields) | {"frames"}
    part = set(openai_image_params.ChatCompletionContentPartImageParam.__annotations__)
    assert set(ImagePart.model_fields) == part | set(ImageURLChunk.model_fields)
    ours = {"pages", "dpi", "detail", "prompt_cache_breakpoint"}
    assert set(DocumentPart.model_fields) == set(DocumentURLChunk.model_fields) | ours


def test_parts_of_every_kind_are_read_or_refused_by_name(endpoint: Endpoint) -> None:
    read = {"text", "image_url", "document_url"}
    kinds = set(_CONTENT_CHUNK_VARIANTS) | {
        get_args(get_type_hints(part)["type"])[0]
        for part in get_args(ChatCompletionContentPartParam)
    }
    assert read < kinds
    for kind in kinds - read:
        content = [{"type": kind, kind: "x"}]
        answer = endpoint.chat(messages=[{"role": "user", "content": content}])
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "messages[0].content[0].type"), kind
        assert kind in error["message"]


def test_an_unknown_field_is_named(endpoint: Endpoint) -> None:
    error = endpoint.chat(chat_template="{{evil}}").json()["error"]
    assert error["param"] == "chat_template"
    assert error["code"] == "unknown_parameter"
