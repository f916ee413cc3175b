"""The application's edge: keys, limits, routes, headers, health."""

from __future__ import annotations

import base64
import logging
import re
import socket
from uuid import UUID

import httpx2
import openai
import pytest

from serve_app.errors import LedgerUnavailable
from serve_app.gateway.fields import FIELDS
from serve_app.gateway.tiers import Readiness
from serve_app.reasons import DATABASE
from tests.serve_app.gateway.client_cases import QUESTION, Endpoint, image_part, picture, text_part
from tests.serve_app.gateway.conftest import ALIAS, Gateway
from tests.serve_app.gateway.store import eventually


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer sk-wrong", "Basic abc", "Bearer sk-ü"]
)
def test_all_wrong_keys_get_one_answer(endpoint: Endpoint, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode()}
    url = f"{endpoint.url}/v1/chat/completions"
    answer = httpx2.post(url, content=b"{", headers=headers, verify=False)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    message = "missing or unknown API key; send it as 'Authorization: Bearer KEY'"
    assert answer.json()["message"] == message


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/x", "/mistral/v1/models", "/v1/tokenize"]
)
def test_every_v1_route_wants_the_key(endpoint: Endpoint, path: str) -> None:
    method = "POST" if path.endswith("tokenize") else "GET"
    assert httpx2.request(method, endpoint.url + path, verify=False).status_code == 401


def test_without_auth_no_key_is_wanted(serve) -> None:
    gateway = serve(gateway={"auth": False})
    assert gateway.endpoint.get("/v1/models").status_code == 200


def test_a_declared_body_over_the_limit_is_refused(serve) -> None:
    gateway = serve(gateway={"max_body_bytes": 2000})
    with pytest.raises(openai.APIStatusError) as caught:
        gateway.endpoint.openai().chat.completions.create(
            model=gateway.endpoint.model, messages=[{"role": "user", "content": "x" * 3000}]
        )
    assert caught.value.status_code == 413
    assert caught.value.code == "payload_too_large"


def test_a_declared_body_over_the_limit_is_not_waited_for(gateway: Gateway) -> None:
    length = gateway.config.gateway.max_body_bytes + 1
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n"
        f"Authorization: Bearer {gateway.endpoint.api_key}\r\n\r\n"
    )
    host, port = gateway.endpoint.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_an_undeclared_body_is_counted_while_it_is_read(serve) -> None:
    gateway = serve(gateway={"max_body_bytes": 2000})
    chunks = (b"x" * 500 for _ in range(20))
    answer = gateway.endpoint.post("/v1/chat/completions", chunks)
    assert answer.status_code == 413
    assert "2000 bytes" in answer.json()["message"]


def test_more_pictures_than_allowed_are_refused_before_work(serve) -> None:
    gateway = serve(gateway={"max_pictures": 1})
    content = [image_part(8, 8), image_part(8, 8)]
    answer = gateway.endpoint.chat(messages=[{"role": "user", "content": content}])
    assert answer.json()["error"]["code"] == "too_many_pictures"
    assert gateway.tiers.prepared == []


def test_a_picture_that_cannot_be_read_is_named_by_its_place(gateway: Gateway) -> None:
    broken = "data:image/png;base64," + base64.b64encode(picture(8, 8)[:40]).decode()
    part = {"type": "image_url", "image_url": broken}
    content = [image_part(8, 8), text_part("x"), part]
    error = gateway.endpoint.chat(messages=[{"role": "user", "content": content}]).json()["error"]
    assert error["param"] == "messages[0].content[2].image_url"
    assert error["type"] == "invalid_request_error"
    assert broken[-20:] not in error["message"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "tool", "tool_call_id": "abc", "content": "x"}],
        [*QUESTION, {"role": "assistant", "content": "Done."}],
        [*QUESTION, {"role": "assistant", "content": "Dear", "prefix": True}, *QUESTION],
    ],
)
def test_a_conversation_that_cannot_be_told_is_refused(endpoint: Endpoint, messages) -> None:
    answer = endpoint.chat(messages=messages)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("messages")


def test_a_picture_address_is_refused_clearly(endpoint: Endpoint) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    answer = endpoint.chat(messages=[{"role": "user", "content": [part]}])
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "messages[0].content[0].image_url"
    assert "data: URL" in answer.json()["error"]["message"]


def test_an_alias_reaches_the_model(gateway: Gateway) -> None:
    answer = gateway.endpoint.chat(model=ALIAS, max_tokens=1)
    assert answer.json()["model"] == gateway.endpoint.model
    assert gateway.endpoint.openai().models.retrieve(ALIAS).id == gateway.endpoint.model
    card = gateway.endpoint.mistral().models.retrieve(model_id=ALIAS)
    assert card.max_context_length == 2048


def test_an_unknown_model_is_a_404_everywhere(endpoint: Endpoint) -> None:
    with pytest.raises(openai.NotFoundError):
        endpoint.openai().models.retrieve("gpt-4o")
    assert endpoint.chat("/mistral/v1", model="x").status_code == 404


def test_unknown_routes_and_methods_speak_the_same_shape(endpoint: Endpoint) -> None:
    missing = endpoint.post("/v1/embeddings", {})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    assert "POST /v1/embeddings" in missing.json()["message"]
    wrong = endpoint.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert UUID(wrong.headers["x-request-id"]).version == 7


def test_the_context_limit_holds_for_answers_of_many_choices(endpoint: Endpoint) -> None:
    error = endpoint.chat(n=99).json()["error"]
    assert error["param"] == "n"


def test_an_untrained_model_says_so_everywhere(serve) -> None:
    gateway = serve(model={"untrained": True})
    answer = gateway.endpoint.chat(max_tokens=1)
    assert answer.headers["x-model-untrained"] == "true"
    assert gateway.endpoint.openai().models.list().data[0].untrained


def test_a_trained_model_says_nothing_of_it(endpoint: Endpoint) -> None:
    assert "x-model-untrained" not in endpoint.chat(max_tokens=1).headers
    assert not hasattr(endpoint.openai().models.list().data[0], "untrained")


def test_a_bug_of_ours_tells_the_caller_only_where_to_look(gateway: Gateway, caplog) -> None:
    gateway.tiers.prepare_error = ZeroDivisionError("secret internals")
    with caplog.at_level(logging.ERROR):
        answer = gateway.endpoint.chat()
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "engine_tiers.py" in caplog.text
    assert "secret" not in caplog.text


def test_request_ids_sort_by_time_and_reach_the_engine(gateway: Gateway) -> None:
    ids = [gateway.endpoint.chat(max_tokens=1).headers["x-request-id"] for _ in range(3)]
    assert ids == sorted(ids)
    assert [request.request_id for request in gateway.tiers.requests] == ids


def test_health_needs_no_key_and_readiness_gives_reasons(gateway: Gateway) -> None:
    assert gateway.endpoint.get("/healthz").json() == {"status": "ok"}
    assert gateway.endpoint.get("/readyz").json() == {"ready": True, "reasons": []}
    gateway.tiers.readiness_answer = Readiness(False, ("decoder group 1: no token for 40 s",))
    answer = gateway.endpoint.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["decoder group 1: no token for 40 s"]
    assert answer.headers["retry-after"]


def test_a_gateway_whose_accounts_do_not_answer_is_not_ready(gateway: Gateway, monkeypatch) -> None:
    def away():
        raise LedgerUnavailable("the accounts cannot be reached")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.office.database, "read", away)
        answer = gateway.endpoint.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "reasons": [DATABASE]}
    assert gateway.endpoint.get("/readyz").status_code == 200


def test_openapi_describes_every_field_of_the_body(endpoint: Endpoint) -> None:
    document = endpoint.get("/openapi.json")
    schemas = document.json()["components"]["schemas"]
    post = document.json()["paths"]["/v1/chat/completions"]["post"]
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/ChatBody"}
    assert set(schemas["ChatBody"]["properties"]) == set(FIELDS)
    named = set(re.findall(r'"\$ref":"#/components/schemas/(\w+)"', document.text))
    assert len(named) > 5
    assert named <= set(schemas)
    assert "$defs" not in document.text
    assert post["security"]


def test_the_accounts_are_there_too_each_behind_its_own_door(serve) -> None:
    gateway = serve(admin=True)
    gateway.endpoint.chat(max_tokens=2, ignore_eos=True)
    key = {"Authorization": f"Bearer {gateway.endpoint.api_key}"}
    for path in ("/v1/usage", "/admin/teams"):
        assert gateway.endpoint.get(path).status_code == 401
        assert gateway.endpoint.get(path, headers=key).status_code == 200
    member = {"Authorization": f"Bearer {gateway.store.create_key()}"}
    assert gateway.endpoint.get("/admin/teams", headers=member).status_code == 403
    assert "pixtral_ledger" in gateway.endpoint.get("/metrics").text
    eventually(gateway.store.closed)
    proof = gateway.endpoint.get("/admin/reconcile", headers=key).json()
    assert proof["differences"] == []
    assert proof["engines"] == [gateway.tiers.group]


def test_no_page_loads_scripts_from_elsewhere(endpoint: Endpoint) -> None:
    assert [endpoint.get(page).status_code for page in ("/docs", "/redoc")] == [404, 404]


def test_tokenize_generates_nothing(gateway: Gateway) -> None:
    body = {"model": gateway.endpoint.model, "messages": QUESTION}
    quote = gateway.endpoint.post("/v1/tokenize", body).json()
    assert quote["prompt_tokens"] > 0
    assert gateway.tiers.requests == []


def test_tokenize_refuses_what_chat_would_refuse(endpoint: Endpoint) -> None:
    body = {"model": endpoint.model, "messages": QUESTION, "max_tokens": 10**6}
    error = endpoint.post("/v1/tokenize", body).json()["error"]
    assert error["code"] == "context_length_exceeded"
