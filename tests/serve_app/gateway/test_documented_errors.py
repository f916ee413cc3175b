"""Every error status that /openapi.json documents is seen, in the shape it documents.

``PROVOCATIONS`` says how; what is documented and provoked nowhere fails, as does the reverse.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from serve_app.accounting.database import Database
from serve_app.accounting.keys import new_token
from serve_app.errors import GenerationFailed, LedgerUnavailable
from serve_app.gateway.refusals import ErrorBody
from serve_app.gateway.tiers import Readiness
from tests.serve_app.gateway.conftest import KEY, MODEL
from tests.serve_app.gateway.store import eventually
from tests.serve_app.gateway.town import (
    CANARY,
    CHAT,
    MAX_BODY_BYTES,
    PRICE,
    SCRAPE_TOKEN,
    Town,
    town,
)

__all__ = ["town"]
INTERNALS = "a text of an exception of ours"
TOO_LONG = "x" * 201
JSON = {"Content-Type": "application/json"}


Provocation = Callable[[Town], httpx2.Response]


def asked(method: str, path: str, **given: Any) -> Provocation:
    return lambda town: town.call(method, path, **given)


# A call of each route that is well-formed, whatever becomes of it.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "GET /metrics": ("/metrics", {}),
    "GET /readyz": ("/readyz", {}),
    "GET /healthz": ("/healthz", {}),
    "POST /v1/chat/completions": ("/v1/chat/completions", {"json": CHAT}),
    "POST /v1/tokenize": ("/v1/tokenize", {"json": CHAT}),
    "GET /v1/models": ("/v1/models", {}),
    "GET /v1/models/{model_id}": (f"/v1/models/{MODEL}", {}),
    "POST /mistral/v1/chat/completions": ("/mistral/v1/chat/completions", {"json": CHAT}),
    "POST /mistral/v1/tokenize": ("/mistral/v1/tokenize", {"json": CHAT}),
    "GET /mistral/v1/models": ("/mistral/v1/models", {}),
    "GET /mistral/v1/models/{model_id}": (f"/mistral/v1/models/{MODEL}", {}),
    "GET /v1/usage": ("/v1/usage", {}),
    "GET /admin/organisations": ("/admin/organisations", {}),
    "POST /admin/organisations": ("/admin/organisations", {"json": {"name": "acme"}}),
    "PATCH /admin/organisations/{name}/limits": (
        "/admin/organisations/acme/limits",
        {"json": {"budget_usd": "5"}},
    ),
    "GET /admin/teams": ("/admin/teams", {}),
    "POST /admin/teams": ("/admin/teams", {"json": {"name": "twin"}}),
    "PATCH /admin/teams/{team}/limits": (
        "/admin/teams/acme/twin/limits",
        {"json": {"budget_usd": "5"}},
    ),
    "GET /admin/keys": ("/admin/keys", {}),
    "POST /admin/keys": ("/admin/keys", {"json": {"team": "acme/twin", "name": "new"}}),
    "POST /admin/keys/{public_id}/rotate": ("/admin/keys/$ended_key/rotate", {"json": {}}),
    "POST /admin/keys/{public_id}/revoke": ("/admin/keys/$ended_key/revoke", {}),
    "PATCH /admin/keys/{public_id}/limits": (
        "/admin/keys/$ended_key/limits",
        {"json": {"budget_usd": "5"}},
    ),
    "GET /admin/prices": ("/admin/prices", {}),
    "POST /admin/prices": ("/admin/prices", {"json": PRICE}),
    "POST /admin/adjustments": (
        "/admin/adjustments",
        {"json": {"line_id": 1, "reason": "test"}},
    ),
    "GET /admin/months/{month}": ("/admin/months/2026-01", {}),
    "POST /admin/months/{month}/close": ("/admin/months/2026-01/close", {}),
    "GET /admin/usage": ("/admin/usage", {}),
    "GET /admin/usage/focus": ("/admin/usage/focus", {}),
    "GET /admin/economics": ("/admin/economics", {}),
    "GET /admin/requests/{request_id}": ("/admin/requests/unknown", {}),
    "GET /admin/reconcile": ("/admin/reconcile", {}),
    "GET /admin/alerts": ("/admin/alerts", {}),
    "GET /admin/audit": ("/admin/audit", {}),
    "GET /admin/groups": ("/admin/groups", {}),
}


def called(route: str, **changes: Any) -> Provocation:
    path, given = CALLS[route]
    return asked(route.split()[0], path, **{**given, **changes})


def out_of_scope(route: str) -> Provocation:
    def provoke(town: Town) -> httpx2.Response:
        key = town.chat_only if route == "GET /v1/usage" else town.usage_only
        return called(route, key=key["secret"])(town)

    return provoke


def without_store(route: str, error: Exception) -> Provocation:
    """A key that no gateway has seen yet, and a store that cannot tell."""

    def provoke(town: Town) -> httpx2.Response:
        def read(_: Database) -> None:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Database, "read", read)
            return called(route, key=SCRAPE_TOKEN if route == "GET /metrics" else new_token())(town)

    return provoke


def not_ready(town: Town) -> httpx2.Response:
    town.gateway.tiers.readiness_answer = Readiness(False, ("no group",))
    return called("GET /readyz")(town)


def broken_off(route: str) -> Provocation:
    def provoke(town: Town) -> httpx2.Response:
        tiers = town.gateway.tiers
        tiers.generate_error = GenerationFailed("a group was lost")
        try:
            return called(route)(town)
        finally:
            tiers.generate_error = None

    return provoke


def in_flight(route: str) -> Provocation:
    """Another gateway is at work on it."""

    def provoke(town: Town) -> httpx2.Response:
        tiers = town.gateway.tiers
        path, body = CALLS[route]
        begun = len(tiers.requests)
        headers = {"Idempotency-Key": f"in-flight-{path}", "Authorization": f"Bearer {KEY}"}
        tiers.step_delay_s = 0.05
        url = town.second.endpoint.url + path
        long = {**body["json"], "max_tokens": 8, "ignore_eos": True}
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(httpx2.post, url, json=long, headers=headers, verify=False)
            eventually(lambda: len(tiers.requests) > begun)
            answer = called(route, json=long, headers=headers)(town)
            tiers.step_delay_s = 0.0
            assert running.result().status_code == 200
        return answer

    return provoke


def reused_key(route: str) -> Provocation:
    def provoke(town: Town) -> httpx2.Response:
        headers = {"Idempotency-Key": f"reused-{route.split()[1]}"}
        assert called(route, headers=headers)(town).status_code == 200
        return called(route, headers=headers, json={**CHAT, "max_tokens": 1})(town)

    return provoke


def of_broke(route: str) -> Provocation:
    return lambda town: called(route, key=town.broke)(town)


def same_price(town: Town) -> httpx2.Response:
    return called("POST /admin/prices", json=town.price)(town)


def refunded(town: Town) -> httpx2.Response:
    body = {"line_id": town.refunded_line, "reason": "again"}
    return called("POST /admin/adjustments", json=body)(town)


def with_params(route: str, **params: str) -> Provocation:
    return called(route, params=params)


def _provocations() -> dict[tuple[str, int], Provocation]:
    table: dict[tuple[str, int], Provocation] = {("GET /readyz", 503): not_ready}
    table["GET /metrics", 401] = called("GET /metrics", key="wrong")
    for route in CALLS:
        if route in ("GET /healthz", "GET /readyz"):
            continue
        table[route, 500] = without_store(route, ZeroDivisionError(INTERNALS))
        table[route, 503] = without_store(route, LedgerUnavailable("no store"))
        if route != "GET /metrics":
            table[route, 401] = called(route, key=None)
            table[route, 403] = out_of_scope(route)
    for dialect in ("", "/mistral"):
        chat, count = f"POST {dialect}/v1/chat/completions", f"POST {dialect}/v1/tokenize"
        for route in (chat, count):
            table[route, 400] = called(route, json={**CHAT, "reasoning_effort": CANARY})
            table[route, 404] = called(route, json={**CHAT, "model": "gpt-4o"})
            table[route, 413] = called(route, json=None, content=b" " * (MAX_BODY_BYTES + 1))
        models = f"GET {dialect}/v1/models/{{model_id}}"
        table[models, 404] = asked("GET", f"{dialect}/v1/models/gpt-4o")
        table[chat, 409] = in_flight(chat)
        table[chat, 422] = reused_key(chat)
        table[chat, 429] = of_broke(chat)
        table[chat, 502] = broken_off(chat)
    malformed = called("POST /mistral/v1/tokenize", json={**CHAT, "messages": CANARY})
    table["POST /mistral/v1/tokenize", 422] = malformed
    for route, (_, given) in CALLS.items():
        if "/admin" in route and "json" in given:
            table[route, 413] = called(route, json=None, content=b" " * (MAX_BODY_BYTES + 1))
            table[route, 422] = called(route, json={**given["json"], "surprise": CANARY})
    for route, name in {
        "GET /v1/usage": "by",
        "GET /admin/keys": "team",
        "GET /admin/prices": "model",
        "GET /admin/usage": "by",
        "GET /admin/usage/focus": "format",
        "GET /admin/economics": "hours",
        "GET /admin/reconcile": "month",
        "GET /admin/alerts": "month",
        "GET /admin/audit": "limit",
    }.items():
        table[route, 422] = with_params(route, **{name: TOO_LONG})
    limits = {
        "PATCH /admin/organisations/{name}/limits": "/admin/organisations/{}/limits",
        "PATCH /admin/teams/{team}/limits": "/admin/teams/{}/limits",
        "PATCH /admin/keys/{public_id}/limits": "/admin/keys/{}/limits",
    }
    for route, path in limits.items():
        table[route, 400] = called(route, json={"alert_percents": [0]})
        table[route, 404] = asked("PATCH", path.format("nowhere"), json={})
    return table | {
        ("GET /v1/usage", 400): with_params("GET /v1/usage", **{"from": "2026-99"}),
        ("POST /admin/organisations", 400): called("POST /admin/organisations", json={"name": "="}),
        ("POST /admin/organisations", 409): called("POST /admin/organisations"),
        ("POST /admin/teams", 400): called("POST /admin/teams", json={"name": "="}),
        ("POST /admin/teams", 404): called(
            "POST /admin/teams", json={"name": "a", "organisation": "nowhere"}
        ),
        ("POST /admin/teams", 409): called("POST /admin/teams"),
        ("GET /admin/keys", 400): with_params("GET /admin/keys", team="twin"),
        ("GET /admin/keys", 404): with_params("GET /admin/keys", team="nowhere"),
        ("POST /admin/keys", 400): called("POST /admin/keys", json={"team": "twin", "name": "a"}),
        ("POST /admin/keys", 404): called("POST /admin/keys", json={"team": "no", "name": "a"}),
        ("POST /admin/keys", 409): called(
            "POST /admin/keys", json={"team": "default/default", "name": "broke"}
        ),
        ("POST /admin/keys/{public_id}/rotate", 400): called(
            "POST /admin/keys/{public_id}/rotate", json=None, content=b"\xff", headers=JSON
        ),
        ("POST /admin/keys/{public_id}/rotate", 404): asked(
            "POST", "/admin/keys/nowhere/rotate", json={}
        ),
        ("POST /admin/keys/{public_id}/rotate", 409): called("POST /admin/keys/{public_id}/rotate"),
        ("POST /admin/keys/{public_id}/revoke", 404): asked("POST", "/admin/keys/nowhere/revoke"),
        ("POST /admin/keys/{public_id}/revoke", 422): asked(
            "POST", f"/admin/keys/{TOO_LONG}/revoke"
        ),
        ("POST /admin/prices", 400): called(
            "POST /admin/prices", json={**PRICE, "text_usd": "0.0000001"}
        ),
        ("POST /admin/prices", 409): same_price,
        ("POST /admin/adjustments", 400): called(
            "POST /admin/adjustments", json={"line_id": 1, "reason": " "}
        ),
        ("POST /admin/adjustments", 404): called(
            "POST /admin/adjustments", json={"line_id": 2**40, "reason": "test"}
        ),
        ("POST /admin/adjustments", 409): refunded,
        ("GET /admin/months/{month}", 400): asked("GET", "/admin/months/2026-13"),
        ("GET /admin/months/{month}", 422): asked("GET", "/admin/months/May"),
        ("POST /admin/months/{month}/close", 400): asked("POST", "/admin/months/2026-13/close"),
        ("POST /admin/months/{month}/close", 409): asked("POST", "/admin/months/2999-01/close"),
        ("POST /admin/months/{month}/close", 422): asked("POST", "/admin/months/May/close"),
        ("GET /admin/usage", 400): with_params("GET /admin/usage", **{"from": "2026-99"}),
        ("GET /admin/usage", 404): with_params("GET /admin/usage", key="nobody"),
        ("GET /admin/usage/focus", 400): with_params("GET /admin/usage/focus", to="2026-99"),
        ("GET /admin/usage/focus", 404): with_params("GET /admin/usage/focus", team="nowhere"),
        ("GET /admin/economics", 409): called("GET /admin/economics"),
        ("GET /admin/requests/{request_id}", 404): called("GET /admin/requests/{request_id}"),
        ("GET /admin/requests/{request_id}", 422): asked("GET", f"/admin/requests/{TOO_LONG}"),
        ("GET /admin/reconcile", 400): with_params("GET /admin/reconcile", month="2026-13"),
        ("GET /admin/alerts", 400): with_params("GET /admin/alerts", month="2026-13"),
    }


PROVOCATIONS = _provocations()


def test_what_is_documented_is_provoked(town: Town) -> None:
    documented = {
        (f"{method.upper()} {path}", int(status))
        for path, operations in town.document["paths"].items()
        for method, operation in operations.items()
        for status in operation["responses"]
        if int(status) >= 400
    }
    assert documented == set(PROVOCATIONS)


@pytest.mark.parametrize(
    ("route", "status"), list(PROVOCATIONS), ids=lambda part: str(part).replace("/", "_")
)
def test_a_documented_error_is_seen(town: Town, caplog, route: str, status: int) -> None:
    with caplog.at_level(logging.INFO):
        answer = PROVOCATIONS[route, status](town)
    assert answer.status_code == status, answer.text
    assert INTERNALS not in answer.text
    if route == "GET /readyz":
        return
    body = ErrorBody.model_validate_json(answer.content)
    assert json.loads(answer.content)["error"] == body.error.model_dump()
    for secret in (KEY, CANARY, SCRAPE_TOKEN, town.broke):
        assert secret not in answer.text
        assert secret not in caplog.text


def test_no_route_answers_in_a_shape_that_is_not_ours(town: Town) -> None:
    assert "HTTPValidationError" not in json.dumps(town.document)
    missing = ErrorBody.model_validate_json(town.call("GET", "/v1/embeddings").content)
    assert missing.code == "not_found"
