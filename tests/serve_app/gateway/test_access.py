"""Who may do what: keys, roles, scopes and limits, as callers meet them."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import httpx2
import openai
import pytest

from serve_app.accounting.roles import Role
from tests.serve_app.gateway.client_cases import QUESTION, image_part
from tests.serve_app.gateway.conftest import Gateway
from tests.serve_app.gateway.store import ACTOR, eventually

CHAT = "/v1/chat/completions"


def ask(gateway: Gateway, token: str, path: str = CHAT, **fields: Any) -> httpx2.Response:
    body = {"model": gateway.endpoint.model, "messages": QUESTION, "max_tokens": 2, **fields}
    return gateway.endpoint.post(path, body, headers={"Authorization": f"Bearer {token}"})


def models(gateway: Gateway, token: str) -> httpx2.Response:
    return gateway.endpoint.get("/v1/models", headers={"Authorization": f"Bearer {token}"})


def is_refused(gateway: Gateway, token: str) -> bool:
    return models(gateway, token).status_code == 401


@pytest.mark.parametrize("role", [Role.ADMIN, Role.LEAD, Role.MEMBER])
def test_a_key_calls_and_is_billed_to_its_team(gateway: Gateway, role: Role) -> None:
    token = gateway.store.create_key(role=role)
    assert ask(gateway, token).status_code == 200
    [key] = gateway.store.rows(
        "SELECT account_id FROM keys WHERE role = ? AND public_id IN (?)",
        role,
        token.removeprefix("sk-pixtral-").split("_")[0],
    )
    [hold] = gateway.store.holds()
    assert hold["key_id"] == key["account_id"]
    assert {line["account_id"] for line in gateway.store.lines()} == {hold["team_id"]}


@pytest.mark.parametrize("path", [CHAT, "/v1/tokenize", f"/mistral{CHAT}"])
def test_finance_looks_and_does_not_call(gateway: Gateway, path: str) -> None:
    token = gateway.store.create_key(role=Role.FINANCE)
    answer = ask(gateway, token, path)
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"
    assert gateway.tiers.prepared == []


def test_a_scope_of_endpoints_holds(gateway: Gateway) -> None:
    token = gateway.store.create_key(endpoints=["tokenize"])
    assert ask(gateway, token, "/v1/tokenize").status_code == 200
    assert ask(gateway, token).status_code == 403
    assert models(gateway, token).status_code == 403


def test_a_scope_of_models_holds_for_aliases_too(gateway: Gateway) -> None:
    elsewhere = gateway.store.create_key("elsewhere", models=["another-model"])
    answer = ask(gateway, elsewhere, model="pixtral-large-latest")
    assert answer.status_code == 403
    assert answer.json()["error"]["param"] == "model"
    here = gateway.store.create_key("here", models=[gateway.endpoint.model])
    assert ask(gateway, here, model="pixtral-large-latest").status_code == 200


def test_a_revoked_key_is_refused_everywhere_within_two_seconds(serve) -> None:
    first, second = serve(), serve()
    token = first.store.create_key()
    assert {models(each, token).status_code for each in (first, second)} == {200}
    public_id = token.removeprefix("sk-pixtral-").split("_")[0]
    revoked_at = time.monotonic()
    first.store.change(lambda directory: directory.revoke_key(public_id, actor=ACTOR))
    for gateway in (first, second):
        refused = partial(is_refused, gateway, token)
        eventually(refused, seconds=2)
    assert time.monotonic() - revoked_at < 2


def test_pictures_are_limited_per_team(gateway: Gateway) -> None:
    gateway.store.limit_team(max_pictures=1)
    two = [{"role": "user", "content": [image_part(8, 8), image_part(8, 8)]}]
    answer = ask(gateway, gateway.store.create_key(), messages=two)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "too_many_pictures"
    assert answer.json()["error"]["param"] == "messages"
    assert gateway.tiers.prepared == []


def test_an_answer_tells_what_is_left(gateway: Gateway) -> None:
    gateway.store.limit_team(requests_per_minute=60, output_tokens_per_minute=6_000)
    raw = gateway.endpoint.openai().chat.completions.with_raw_response.create(
        model=gateway.endpoint.model, messages=QUESTION, max_tokens=100
    )
    headers = raw.headers
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"] == "1s"
    assert headers["x-ratelimit-limit-tokens"] == "6000"
    assert headers["x-ratelimit-remaining-tokens"] == "5900"
    assert headers["x-ratelimit-reset-tokens"] == "1s"


def test_without_limits_nothing_is_said_of_them(gateway: Gateway) -> None:
    headers = gateway.endpoint.chat(max_tokens=1).headers
    assert not [name for name in headers if name.startswith("x-ratelimit")]


def test_over_the_rate_the_client_is_told_when_to_come_back(gateway: Gateway) -> None:
    gateway.store.limit_team(requests_per_minute=1)
    client = gateway.endpoint.openai()
    asked: Any = {"model": gateway.endpoint.model, "messages": QUESTION, "max_tokens": 1}
    client.chat.completions.create(**asked)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**asked)
    headers = caught.value.response.headers
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-should-retry"] == "true"
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert len(gateway.tiers.requests) == 1


def test_an_exhausted_budget_is_not_retried_by_the_official_client(gateway: Gateway) -> None:
    gateway.store.limit_team(budget_nano_usd=1_000)
    with pytest.raises(openai.RateLimitError) as caught:
        gateway.endpoint.openai(max_retries=5).chat.completions.create(
            model=gateway.endpoint.model, messages=QUESTION
        )
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert len(gateway.tiers.prepared) == 1
    assert gateway.tiers.requests == []


def test_a_request_at_work_counts_until_it_is_settled(gateway: Gateway) -> None:
    gateway.store.limit_team(max_concurrent=1)
    gateway.tiers.hangs, gateway.tiers.items = True, 1
    stream = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model, messages=QUESTION, stream=True, max_tokens=50
    )
    next(iter(stream))
    assert gateway.endpoint.chat().status_code == 429
    stream.close()
    gateway.tiers.hangs = False
    eventually(lambda: gateway.endpoint.chat(max_tokens=1).status_code == 200)


def test_without_auth_calls_are_a_members(serve) -> None:
    gateway = serve(gateway={"auth": False})
    answer = httpx2.post(
        gateway.endpoint.url + CHAT,
        json={"model": gateway.endpoint.model, "messages": QUESTION, "max_tokens": 1},
    )
    assert answer.status_code == 200
    [hold] = gateway.store.holds()
    [key] = gateway.store.rows("SELECT * FROM keys WHERE account_id = ?", hold["key_id"])
    assert (key["public_id"], key["role"]) == ("anonymous", "member")
