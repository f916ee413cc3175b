"""Requests with an Idempotency-Key: one generation and one charge, however often they are sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import openai
import pytest

from serve_app.errors import GenerationFailed, Overloaded
from tests.serve_app.gateway.client_cases import QUESTION
from tests.serve_app.gateway.conftest import Gateway, both_stores
from tests.serve_app.gateway.store import eventually

pytestmark = both_stores

LONG: Any = {"max_tokens": 1500, "ignore_eos": True}
SHORT: Any = {"max_tokens": 20, "ignore_eos": True, "temperature": 1}


def ask(gateway: Gateway, key: str, path: str = "/v1", token: str = "", **fields: Any) -> Any:
    body = {"model": gateway.endpoint.model, "messages": QUESTION, **fields}
    headers = {"Idempotency-Key": key}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return gateway.endpoint.post(f"{path}/chat/completions", body, headers=headers)


def content(answer: httpx2.Response) -> bytes:
    """Without the comments that fill a reader's silence."""
    return answer.content.replace(b": ping\n\n", b"")


@pytest.mark.parametrize("stream", [False, True])
def test_twenty_at_once_are_one(gateway: Gateway, stream: bool) -> None:
    gateway.tiers.step_delay_s = 0.01
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: ask(gateway, "k", stream=stream, **SHORT), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({content(answer) for answer in answers}) == 1
    assert len({answer.headers["x-request-id"] for answer in answers}) == 20
    replayed = [answer for answer in answers if answer.headers.get("idempotent-replayed")]
    assert len(replayed) == 19
    assert len(gateway.tiers.requests) == 1
    assert gateway.store.outcomes() == ["completed"]
    assert gateway.store.tokens()["output"] == 20


@pytest.mark.parametrize("stream", [False, True])
def test_two_gateways_make_one_answer(serve, stream: bool) -> None:
    first = serve()
    second = serve(tiers=first.tiers)
    first.tiers.step_delay_s = 0.02
    with ThreadPoolExecutor(8) as pool:
        gateways = [first, second] * 4
        answers = list(pool.map(lambda each: ask(each, "k", stream=stream, **SHORT), gateways))
    assert len({content(answer) for answer in answers}) == 1
    assert len(first.tiers.requests) == 1
    assert first.store.outcomes() == ["completed"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_finished_answer_is_replayed_by_any_gateway(serve, stream: bool) -> None:
    first = serve()
    original = ask(first, "k", stream=stream, **SHORT)
    first.stop()
    second = serve()
    repeat = ask(second, "k", stream=stream, **SHORT)
    assert repeat.content == original.content
    assert repeat.headers["content-type"] == original.headers["content-type"]
    assert repeat.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in original.headers
    assert repeat.headers.get("x-request-cost-usd") == original.headers.get("x-request-cost-usd")
    assert second.tiers.requests == []
    assert len(second.store.holds()) == 1


def test_a_repeat_begins_with_the_first_chunk(gateway: Gateway) -> None:
    gateway.tiers.step_delay_s = 0.02
    client = gateway.endpoint.openai()
    asked: Any = {"model": gateway.endpoint.model, "messages": QUESTION, "stream": True}
    asked |= {"extra_headers": {"Idempotency-Key": "k"}, "extra_body": SHORT}
    first = client.chat.completions.create(**asked)
    seen = [next(iter(first)) for _ in range(5)]
    second = client.chat.completions.create(**asked)
    assert [*seen, *first] == list(second)


def test_a_key_of_another_body_or_path_is_refused(gateway: Gateway) -> None:
    gateway.tiers.step_delay_s = 0.02
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, gateway, "k", **SHORT)
        eventually(lambda: len(gateway.tiers.requests) == 1)
        during = ask(gateway, "k", max_tokens=3)
        running.result()
    after = ask(gateway, "k", max_tokens=3)
    elsewhere = ask(gateway, "k", "/mistral/v1", **SHORT)
    for answer in (during, after, elsewhere):
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "idempotency_key_reused"
        assert answer.headers["x-should-retry"] == "false"
    assert len(gateway.tiers.requests) == 1


def test_keys_belong_to_a_team(gateway: Gateway) -> None:
    async def other_team(directory: Any) -> str:
        await directory.create_team("other", actor="test")
        return str((await directory.create_key("other", "k", actor="test")).secret)

    token = gateway.store.change(other_team)
    ask(gateway, "k", **SHORT)
    assert "idempotent-replayed" not in ask(gateway, "k", token=token, **SHORT).headers
    colleague = gateway.store.create_key("colleague")
    assert ask(gateway, "k", token=colleague, **SHORT).headers["idempotent-replayed"] == "true"
    assert len(gateway.tiers.requests) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_it_runs_on_without_its_client(gateway: Gateway, stream: bool) -> None:
    gateway.tiers.step_delay_s = 0.05
    with pytest.raises(openai.APITimeoutError):
        gateway.endpoint.openai(timeout=0.5).chat.completions.create(
            model=gateway.endpoint.model,
            messages=QUESTION,
            max_tokens=20,
            extra_headers={"Idempotency-Key": "k"},
            extra_body={"ignore_eos": True, "temperature": 1},
        )
    eventually(lambda: gateway.store.outcomes() == ["completed"])
    assert gateway.tiers.aborted == []


def test_it_does_not_run_on_forever(serve) -> None:
    gateway = serve(accounting={"keyed_lifetime_s": 0.2})
    gateway.tiers.step_delay_s = 0.01
    stream = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model,
        messages=QUESTION,
        stream=True,
        extra_headers={"Idempotency-Key": "k"},
        extra_body=LONG,
    )
    next(iter(stream))
    stream.close()
    eventually(lambda: gateway.store.outcomes() == ["disconnected"])
    assert 0 < gateway.store.tokens()["output"] < 1000
    eventually(lambda: gateway.store.rows("SELECT * FROM replays") == [])
    gateway.tiers.step_delay_s = 0
    assert ask(gateway, "k", **LONG).status_code == 200
    assert len(gateway.tiers.requests) == 2


def test_a_client_that_comes_back_keeps_it_alive(serve) -> None:
    gateway = serve(accounting={"keyed_lifetime_s": 2.0})
    gateway.tiers.step_delay_s = 0.15
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(
            f"{gateway.endpoint.url}/v1/chat/completions",
            json={"model": gateway.endpoint.model, "messages": QUESTION, **SHORT},
            headers={
                "Authorization": f"Bearer {gateway.endpoint.api_key}",
                "Idempotency-Key": "k",
            },
            timeout=0.1,
        )
    body = {"model": gateway.endpoint.model, "messages": QUESTION, **SHORT}
    answer = httpx2.post(
        f"{gateway.endpoint.url}/v1/chat/completions",
        json=body,
        headers={"Authorization": f"Bearer {gateway.endpoint.api_key}", "Idempotency-Key": "k"},
        timeout=10,
    )
    assert answer.status_code == 200
    assert gateway.store.outcomes() == ["completed"]


@pytest.mark.parametrize(
    ("error", "items", "status"),
    [(Overloaded("busy"), 0, 503), (GenerationFailed("lost"), 3, 502)],
)
def test_a_failure_frees_the_key(gateway: Gateway, error, items, status) -> None:
    gateway.tiers.generate_error, gateway.tiers.items = error, items
    assert ask(gateway, "k", **SHORT).status_code == status
    gateway.tiers.generate_error = None
    assert ask(gateway, "k", **SHORT).status_code == 200
    assert len(gateway.tiers.requests) == 2
    assert gateway.store.outcomes()[1] == "completed"


def test_what_was_refused_is_not_kept(gateway: Gateway) -> None:
    assert ask(gateway, "k", temperature=9).status_code == 400
    gateway.store.limit_team(budget_nano_usd=1)
    assert ask(gateway, "k", **SHORT).status_code == 429
    assert gateway.store.rows("SELECT * FROM replays") == []
    gateway.store.limit_team()
    assert ask(gateway, "k", **SHORT).status_code == 200


def test_an_answer_that_takes_too_long_elsewhere_is_in_flight(serve) -> None:
    first = serve()
    second = serve(tiers=first.tiers, accounting={"replay_wait_s": 0.2})
    first.tiers.step_delay_s = 0.02
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, first, "k", max_tokens=60, ignore_eos=True)
        eventually(lambda: len(first.tiers.requests) == 1)
        answer = ask(second, "k", max_tokens=60, ignore_eos=True)
        assert answer.status_code == 409
        assert answer.json()["error"]["code"] == "request_in_flight"
        assert answer.headers["retry-after"] == "2"
        assert running.result().status_code == 200
    assert len(first.tiers.requests) == 1


def test_a_dead_gateway_s_claim_lapses_with_its_lease(serve) -> None:
    dead, living = serve(), serve()
    ask(dead, "k", **SHORT)
    dead.store.execute("UPDATE replays SET state = 'running', answer = NULL, lease_until_us = 0")
    assert "idempotent-replayed" not in ask(living, "k", **SHORT).headers
    assert len(living.tiers.requests) == 1


def test_answers_expire(serve) -> None:
    gateway = serve(accounting={"replay_keep_s": 0.2})
    ask(gateway, "k", **SHORT)
    eventually(lambda: gateway.store.rows("SELECT * FROM replays") == [])
    ask(gateway, "k", **SHORT)
    assert len(gateway.tiers.requests) == 2


def test_what_is_stored_tells_nothing(gateway: Gateway) -> None:
    gateway.tiers.say("the secret is 42")
    assert "secret" in ask(gateway, "my-key").text
    [row] = gateway.store.rows("SELECT * FROM replays")
    assert row["state"] == "done"
    files = b"".join(file.read_bytes() for file in gateway.store.folder.glob("accounting*"))
    everything = files + repr(row).encode()
    assert b"secret is" not in everything
    assert b"my-key" not in everything


def test_an_answer_opens_only_for_whom_it_was_sealed(gateway: Gateway) -> None:
    ask(gateway, "a", **SHORT)
    ask(gateway, "b", **SHORT)
    gateway.store.execute(
        "UPDATE replays SET answer = (SELECT answer FROM replays AS other"
        " WHERE other.key_digest <> replays.key_digest)"
    )
    assert ask(gateway, "a", **SHORT).status_code == 500


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "naïve"])
def test_a_bad_key_is_named(gateway: Gateway, key: str) -> None:
    body = {"model": gateway.endpoint.model, "messages": QUESTION}
    headers = [
        (b"idempotency-key", key.encode()),
        (b"authorization", f"Bearer {gateway.endpoint.api_key}".encode()),
    ]
    url = f"{gateway.endpoint.url}/v1/chat/completions"
    answer = httpx2.post(url, json=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_two_keys_are_no_key(gateway: Gateway) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    headers.append(("Authorization", f"Bearer {gateway.endpoint.api_key}"))
    url = f"{gateway.endpoint.url}/v1/chat/completions"
    assert httpx2.post(url, content=b"{}", headers=headers).status_code == 400
