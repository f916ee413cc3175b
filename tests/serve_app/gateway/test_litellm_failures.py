"""What broke in LiteLLM's accounting and cannot break here, each by its issue there.

Those of reservations, aggregates, adjustments and lost rows are in
tests/serve_app/accounting/test_litellm_failures.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import openai
import pytest

from serve_app.accounting.hold import HoldRequest
from serve_app.gateway.fields import Dialect
from tests.serve_app.gateway.client_cases import QUESTION, image_part, text_part
from tests.serve_app.gateway.conftest import Gateway
from tests.serve_app.gateway.store import eventually

LONG: Any = {"max_tokens": 1500, "ignore_eos": True}
PICTURE: Any = [{"role": "user", "content": [text_part("What?"), image_part(40, 56)]}]


def journal(gateway: Gateway) -> int:
    """Every token that the engine computed, or found in its prefix cache."""
    return sum(
        tally.text + tally.image + tally.cached_text + tally.cached_image + tally.output
        for tally in gateway.tiers.tallies.values()
    )


def test_a_disconnect_is_never_billed_zero(gateway: Gateway) -> None:
    """PR 33736, PR 37558, #13245: what ran when the client left was recorded with no cost."""
    gateway.tiers.step_delay_s = 0.01
    for _ in range(3):
        stream = gateway.endpoint.openai().chat.completions.create(
            model=gateway.endpoint.model, messages=PICTURE, stream=True, extra_body=LONG
        )
        next(iter(stream))
        stream.close()
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["disconnected"] * 3
    for hold in gateway.store.holds():
        billed = [
            line for line in gateway.store.lines() if line["request_id"] == hold["request_id"]
        ]
        kinds = {line["kind"].removeprefix("cached_") for line in billed}
        assert kinds == {"text", "image", "output"}
        assert all(line["nano_usd"] > 0 for line in billed)
    assert sum(gateway.store.tokens().values()) == journal(gateway)


@pytest.mark.parametrize(
    ("path", "options"),
    [("/v1", {}), ("/v1", {"stream_options": {"include_usage": False}}), ("/mistral/v1", {})],
)
def test_a_stream_is_priced_as_the_whole_answer_is(gateway: Gateway, path, options) -> None:
    """#37923, #40100: streams priced 0, as their usage was taken from chunks that had none."""
    asked: Any = {"messages": PICTURE, "max_tokens": 9, "ignore_eos": True}
    whole = gateway.endpoint.chat(path, **asked)
    before = gateway.store.billed()
    assert before > 0
    streamed = gateway.endpoint.chat(path, stream=True, **asked, **options)
    assert (whole.status_code, streamed.status_code) == (200, 200)
    assert gateway.store.billed() == 2 * before


def test_no_endpoint_that_generates_is_outside_the_budgets(serve) -> None:
    """#38176: whole endpoints never met the budget check."""
    gateway = serve(admin=True)
    gateway.store.limit_team(budget_nano_usd=0)
    generating = [
        path
        for path, methods in gateway.endpoint.get("/openapi.json").json()["paths"].items()
        if "ChatBody" in str(methods) and "tokenize" not in path
    ]
    assert len(generating) == len(Dialect)
    body = {"model": gateway.endpoint.model, "messages": QUESTION}
    for path in generating:
        answer = gateway.endpoint.post(path, body)
        assert answer.status_code == 429
        assert answer.json()["error"]["code"] == "insufficient_quota"
    assert gateway.tiers.requests == []


def test_the_engine_is_reached_only_with_a_hold(gateway: Gateway, monkeypatch) -> None:
    """#38176, #33923: whatever route is added, the one way to the tiers leads past the ledger."""
    held: list[str] = []
    hold, generate = gateway.office.ledger.hold, gateway.tiers.generate

    async def noted(request: HoldRequest) -> Any:
        made = await hold(request)
        held.append(request.request_id)
        return made

    def checked(request: Any, prompt: Any) -> Any:
        assert request.request_id in held
        return generate(request, prompt)

    monkeypatch.setattr(gateway.office.ledger, "hold", noted)
    monkeypatch.setattr(gateway.tiers, "generate", checked)
    for path in ("/v1", "/mistral/v1"):
        for stream in (False, True):
            assert gateway.endpoint.chat(path, stream=stream, max_tokens=1).status_code == 200
    assert len(held) == 4


def test_requests_are_known_by_our_own_ids(gateway: Gateway) -> None:
    """#6633, #28376, #39749: rows keyed by the provider's response id collided and were dropped.
    Neither a client's id nor equal answers make two requests one."""
    asked: Any = {"messages": QUESTION, "max_tokens": 3, "seed": 1, "temperature": 0}
    answers = [
        gateway.endpoint.post(
            "/v1/chat/completions",
            {"model": gateway.endpoint.model, **asked},
            headers={"x-request-id": "mine", "x-client-request-id": "mine"},
        )
        for _ in range(3)
    ]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    assert [hold["request_id"] for hold in gateway.store.holds()] == ids
    assert {UUID(request_id).version for request_id in ids} == {7}
    assert {line["request_id"] for line in gateway.store.lines()} == set(ids)


def test_our_retries_do_not_inflate_the_count(gateway: Gateway, monkeypatch) -> None:
    """#39455: attempts after a lost backend were counted as requests of the team."""
    whole = gateway.tiers.generate

    async def second_attempt(request: Any, prompt: Any) -> Any:
        async for deltas in whole(replace(request, attempt=2), prompt):
            yield deltas

    monkeypatch.setattr(gateway.tiers, "generate", second_attempt)
    usage = gateway.endpoint.chat(max_tokens=5, ignore_eos=True).json()["usage"]
    assert {line["attempt"] for line in gateway.store.lines()} == {2}
    assert sum(gateway.store.tokens().values()) == usage["total_tokens"]
    assert len(gateway.store.holds()) == 1
    eventually(gateway.store.closed)
    assert gateway.store.lines(waste=True) == []


def test_a_client_s_retries_with_a_key_are_billed_once(gateway: Gateway) -> None:
    """#15740, #17814, #39455: the same request, sent again, was recorded again."""
    client = gateway.endpoint.openai()
    for _ in range(5):
        client.chat.completions.create(
            model=gateway.endpoint.model,
            messages=QUESTION,
            max_tokens=4,
            extra_headers={"Idempotency-Key": "one"},
        )
    assert gateway.store.outcomes() == ["completed"]
    assert len(gateway.tiers.requests) == 1


def test_reservations_of_refused_and_failed_requests_do_not_leak(gateway: Gateway) -> None:
    """#27639, PR 30522, #36926, #40050: reservations that nobody released ended in false 429s."""
    gateway.store.limit_team(budget_nano_usd=40_000_000, max_concurrent=4)
    gateway.tiers.generate_error = RuntimeError()
    for _ in range(8):
        assert gateway.endpoint.chat(max_tokens=1000).status_code == 500
    gateway.tiers.generate_error = None
    gateway.tiers.hangs = True
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: leave(gateway), range(4)))
    gateway.tiers.hangs = False
    eventually(lambda: gateway.store.held() == 0)
    assert gateway.endpoint.chat(max_tokens=1000).status_code == 200


def leave(gateway: Gateway) -> None:
    with pytest.raises(openai.APITimeoutError):
        gateway.endpoint.openai(timeout=0.5).chat.completions.create(
            model=gateway.endpoint.model, messages=QUESTION, max_tokens=1000
        )


@pytest.mark.parametrize("method", ["hold", "settle"])
def test_an_unreachable_store_fails_closed(serve: Callable[..., Gateway], method: str) -> None:
    """#33923: "fail closed" failed open. A store that is locked, not a stand-in: nothing is begun
    without a hold, and what was begun is settled once it is back."""
    gateway = serve(accounting={"hold_timeout_s": 0.5})
    if method == "hold":
        with gateway.store.locked():
            answer = gateway.endpoint.chat(max_tokens=3)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "ledger_unavailable"
        assert gateway.tiers.requests == []
    else:
        gateway.tiers.step_delay_s = 0.05
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(gateway.endpoint.chat, max_tokens=10, ignore_eos=True)
            eventually(lambda: gateway.tiers.requests != [])
            with gateway.store.locked():
                answer = running.result(timeout=10)
        assert answer.status_code == 200
        eventually(lambda: gateway.store.outcomes() == ["completed"])
        assert gateway.store.tokens()["output"] == 10
    eventually(lambda: gateway.store.held() == 0)
