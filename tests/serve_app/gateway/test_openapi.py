"""The API is what /openapi.json says: schemathesis makes up requests from it and judges answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from shards.tokenizer import Tokenizer
from tests.serve_app.gateway.client_cases import QUESTION, WEATHER, image_part, text_part
from tests.serve_app.gateway.conftest import KEY, MODEL, Gateway, make_config
from tests.serve_app.gateway.store import Store
from tests.serve_app.gateway.test_documented_errors import CALLS

BEARER = {"Authorization": f"Bearer {KEY}"}
CHECKED = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
    "ignored_auth",
)
TOOL_CALL = '[{"name": "weather", "arguments": {"city": "Paris"}}]'
MOST_CASES = 60
few = settings(
    max_examples=8,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def gateway(
    tokenizer: Tokenizer, founded: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    folder = Path(shutil.copytree(founded, tmp_path_factory.mktemp("api") / "accounts"))
    token_file = folder / "scrape-token"
    token_file.write_text(KEY)
    config = make_config(
        folder,
        model={"default_max_tokens": 4},
        accounting={"metrics_token_file": token_file},
    )
    gateway = Gateway(tokenizer, Store.on_sqlite(folder), config)
    yield gateway
    gateway.stop()


@pytest.fixture(scope="module")
def api(gateway: Gateway) -> Any:
    checks: dict[str, Any] = {name: {"enabled": True} for name in CHECKED}
    config = SchemathesisConfig.from_dict(
        {
            "checks": {"enabled": False, **checks},
            "generation": {"with-security-parameters": False},
        }
    )
    return schemathesis.openapi.from_url(f"{gateway.endpoint.url}/openapi.json", config=config)


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.mark.parametrize("route", CALLS)
def test_made_up_requests_are_answered_as_documented(api: Any, session: Any, route: str) -> None:
    operation = operation_of(api, route)

    @few
    @given(case=st.one_of([operation.as_strategy(mode) for mode in GenerationMode]))
    def ask(case: Any) -> None:
        of_the_served_model(case).call_and_validate(session=session, headers=BEARER)

    ask()


@pytest.mark.parametrize("route", CALLS)
def test_each_limit_of_the_schema_is_kept(api: Any, session: Any, route: str) -> None:
    operation = operation_of(api, route)
    cases = list(
        api.iter_coverage_cases(
            operation,
            generation_modes=list(GenerationMode),
            generation_config=api.config.generation_for(operation=operation, phase="coverage"),
        )
    )
    assert cases
    for case in cases[:: 1 + len(cases) // MOST_CASES]:
        of_the_served_model(case).call_and_validate(session=session, headers=BEARER)


CALLING = "a tool's call"
QUESTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "with a picture": {
        "messages": [{"role": "user", "content": [image_part(32, 32), text_part("What is it?")]}]
    },
    "scored choices": {"n": 2, "logprobs": True, "top_logprobs": 2},
    CALLING: {"tools": [WEATHER], "max_tokens": 100},
}


@pytest.mark.parametrize("dialect", ["", "/mistral"])
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("question", QUESTIONS)
def test_answers_are_as_documented(
    api: Any,
    gateway: Gateway,
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    dialect: str,
    streamed: bool,
    question: str,
) -> None:
    if question == CALLING:
        monkeypatch.setattr(gateway.tiers, "reply", ())
        gateway.tiers.say(TOOL_CALL, tokenizer.vocabulary.tool_calls_id)
    operation = operation_of(api, f"POST {dialect}/v1/chat/completions")
    body = {"model": MODEL, "messages": QUESTION, "stream": streamed, **QUESTIONS[question]}
    case = operation.Case(body=body, media_type="application/json")
    answer = case.call_and_validate(headers=BEARER)
    assert answer.status_code == 200, answer.text
    assert ("tool_calls" in answer.text.replace('"tool_calls":null', "")) == (question == CALLING)
    assert answer.text.endswith("data: [DONE]\n\n") == streamed


@pytest.mark.parametrize("dialect", ["", "/mistral"])
def test_quotes_and_models_are_as_documented(api: Any, dialect: str) -> None:
    body = {"model": MODEL, "messages": QUESTION}
    tokenize = operation_of(api, f"POST {dialect}/v1/tokenize")
    models = operation_of(api, f"GET {dialect}/v1/models/{{model_id}}")
    for case in (
        tokenize.Case(body=body, media_type="application/json"),
        models.Case(path_parameters={"model_id": MODEL}),
    ):
        assert case.call_and_validate(headers=BEARER).status_code == 200


def of_the_served_model(case: Any) -> Any:
    """Made-up names would all be refused before anything else is looked at."""
    body = case.body
    asks_model = "/v1/" in case.operation.path and isinstance(body, dict)
    if asks_model and isinstance(body.get("model"), str):
        body["model"] = MODEL
    return case


def operation_of(api: Any, route: str) -> Any:
    method, path = route.split()
    return api[path][method]
