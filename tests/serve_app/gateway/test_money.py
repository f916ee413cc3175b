"""Every accepted request is held, settled once, and paid for by whom it should be."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import openai
import pytest

from serve_app.errors import GenerationFailed, Overloaded
from shards.errors import GroupError
from tests.serve_app.gateway.client_cases import QUESTION, Endpoint, image_part, text_part
from tests.serve_app.gateway.conftest import Gateway, both_stores
from tests.serve_app.gateway.store import eventually

pytestmark = both_stores

LONG = {"max_tokens": 1500, "ignore_eos": True}
NANO = 10**9


def hang_up(endpoint: Endpoint, *, stream: bool, after_s: float = 1.0) -> None:
    """Ask for a long answer and leave without one."""
    with pytest.raises(openai.APITimeoutError):
        endpoint.openai(timeout=after_s).chat.completions.create(
            model=endpoint.model, messages=QUESTION, stream=stream, extra_body=LONG
        )


def begin(endpoint: Endpoint, **fields: Any) -> Any:
    """A stream of which the first chunk has come."""
    stream = endpoint.openai().chat.completions.create(
        model=endpoint.model, messages=QUESTION, stream=True, extra_body={**LONG, **fields}
    )
    next(iter(stream))
    return stream


def journal(gateway: Gateway) -> dict[str, int]:
    """All tokens that the engine says it has computed, by kind."""
    counted: Counter[str] = Counter()
    for tally in gateway.tiers.tallies.values():
        counted["text"] += tally.text
        counted["image"] += tally.image
        counted["cached_text"] += tally.cached_text
        counted["cached_image"] += tally.cached_image
        counted["output"] += tally.output
        counted["rejected_draft"] += tally.rejected_draft
    return {kind: count for kind, count in counted.items() if count}


def late(work: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    async def later(*args: Any) -> Any:
        await asyncio.sleep(seconds)
        return await work(*args)

    return later


@pytest.mark.parametrize("path", ["/v1", "/mistral/v1"])
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_costs_what_its_lines_add_up_to(gateway: Gateway, path: str, stream) -> None:
    content = [text_part("What?"), image_part(40, 56), text_part("And?"), image_part(16, 16)]
    options = {"stream_options": {"include_usage": True}} if stream and path == "/v1" else {}
    answer = gateway.endpoint.chat(
        path,
        messages=[{"role": "user", "content": content}],
        n=2,
        max_tokens=7,
        ignore_eos=True,
        stream=stream,
        **options,
    )
    body = json.loads(answer.text.split("data: ")[-2]) if stream else answer.json()
    # Told only once it was settled.
    assert gateway.store.outcomes() == ["completed"]
    assert gateway.store.billed() == Decimal(body["usage"]["cost"]["total"]) * NANO
    assert gateway.store.tokens() == {
        "text": body["usage"]["prompt_tokens_details"]["text_tokens"],
        "image": body["usage"]["prompt_tokens_details"]["image_tokens"],
        "output": 14,
    }
    assert gateway.store.held() == 0
    if not stream:
        assert answer.headers["x-request-cost-usd"] == body["usage"]["cost"]["total"]
    eventually(gateway.store.closed)
    assert gateway.store.lines(waste=True) == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_was_cached_is_told_and_billed_as_cached(serve, store, stream: bool) -> None:
    tiers = serve().tiers  # and the first price is there
    store.reprice(cached_text=200, cached_image=100)
    gateway = serve(tiers)
    gateway.tiers.cached_text, gateway.tiers.cached_image = 3, 5
    content = [text_part("What?"), image_part(40, 56)]
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = gateway.endpoint.chat(
        messages=[{"role": "user", "content": content}],
        n=2,
        max_tokens=7,
        ignore_eos=True,
        stream=stream,
        **options,
    )
    usage = (json.loads(answer.text.split("data: ")[-2]) if stream else answer.json())["usage"]
    details, billed = usage["prompt_tokens_details"], gateway.store.tokens()
    assert details["cached_tokens"] == billed["cached_text"] + billed["cached_image"] == 8
    assert details["text_tokens"] == billed["text"] + billed["cached_text"]
    assert details["image_tokens"] == billed["image"] + billed["cached_image"]
    assert usage["prompt_tokens"] == details["text_tokens"] + details["image_tokens"]
    assert gateway.store.billed() == Decimal(usage["cost"]["total"]) * NANO
    by_kind = {line["kind"]: line["nano_usd"] for line in gateway.store.lines() if line["tokens"]}
    assert (by_kind["cached_text"], by_kind["cached_image"]) == (3 * 200, 5 * 100)
    eventually(gateway.store.closed)
    assert billed == journal(gateway)
    assert gateway.store.lines(waste=True) == []


def test_leaving_early_does_not_make_what_was_cached_dearer(gateway: Gateway) -> None:
    gateway.tiers.cached_text = 3
    gateway.tiers.step_delay_s = 0.01
    begin(gateway.endpoint).close()
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["disconnected"]
    assert gateway.store.tokens() == journal(gateway)
    assert gateway.store.tokens()["cached_text"] == 3


@pytest.mark.parametrize("ending", ["completed", "disconnected", "failed"])
def test_guessing_ahead_costs_the_team_nothing(serve: Callable[..., Gateway], ending: str) -> None:
    """The answer quotes the prompt and goes on otherwise, again and again."""
    gateway = serve(admin=True)
    tiers = gateway.tiers
    tiers.max_drafts = 4
    tiers.start_group()
    tiers.say("one two three four, one two five six, one two seven eight, one two nine ten. " * 9)
    if ending == "failed":
        tiers.generate_error, tiers.items = GenerationFailed("lost"), 40
    if ending == "disconnected":
        tiers.step_delay_s = 0.005
        stream = begin(gateway.endpoint, n=2)
        for _ in range(60):
            next(iter(stream))
        stream.close()
    else:
        answer = gateway.endpoint.chat(n=2, max_tokens=150)
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == [ending]
    stats = tiers.engine.stats()
    rejected = stats.drafted_tokens_total - stats.accepted_tokens_total
    assert rejected > 0
    assert gateway.store.tokens(waste=True)["rejected_draft"] == rejected
    paid = gateway.store.tokens()
    assert "rejected_draft" not in paid
    if ending == "completed":
        usage = answer.json()["usage"]
        assert gateway.store.billed() == Decimal(usage["cost"]["total"]) * NANO
        assert paid["output"] == usage["completion_tokens"] == 2 * 150
        assert gateway.store.tokens(waste=True) == {"rejected_draft": rejected}
    # Team and waste together are what was computed; the engine's own counters agree.
    together = Counter(paid) + Counter(gateway.store.tokens(waste=True))
    assert together == journal(gateway)
    key = {"Authorization": f"Bearer {gateway.endpoint.api_key}"}
    found = gateway.endpoint.get("/admin/reconcile", headers=key).json()
    assert (found["agrees"], found["engines"]) == (True, [tiers.group])
    by_kind = gateway.endpoint.get("/admin/usage?by=kind", headers=key).json()["data"]
    (drafts,) = [row for row in by_kind if row["kind"] == "rejected_draft"]
    assert (drafts["wasted_tokens"], drafts["charged_usd"]) == (rejected, "0")


def test_what_is_held_is_what_the_quote_says(gateway: Gateway) -> None:
    gateway.tiers.hangs, gateway.tiers.items = True, 1
    asked = {"max_tokens": 40, "n": 2}
    body = {"model": gateway.endpoint.model, "messages": QUESTION, **asked}
    quote = gateway.endpoint.post("/v1/tokenize", body).json()["quote"]
    stream = begin(gateway.endpoint, **asked)
    [hold] = gateway.store.holds()
    assert hold["amount_nano_usd"] == Decimal(quote["max_total"]) * NANO
    stream.close()


@pytest.mark.parametrize(
    "fields",
    [{"model": "x"}, {"temperature": 9}, {"max_tokens": 10**6}, {"messages": []}],
)
def test_an_invalid_request_never_meets_the_ledger(gateway: Gateway, fields) -> None:
    assert gateway.endpoint.chat(**fields).status_code in (400, 404)
    assert gateway.store.holds() == []


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_it_is_prepared_costs_nothing(gateway, monkeypatch, stream) -> None:
    monkeypatch.setattr(gateway.tiers, "prepare", late(gateway.tiers.prepare, 30))
    hang_up(gateway.endpoint, stream=stream)
    assert gateway.store.holds() == []
    assert gateway.tiers.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_while_it_is_held_frees_the_hold(gateway, monkeypatch, stream) -> None:
    ledger = gateway.office.ledger
    monkeypatch.setattr(ledger, "hold", late(ledger.hold, 1.2))
    hang_up(gateway.endpoint, stream=stream, after_s=0.6)
    eventually(lambda: gateway.store.outcomes() == ["refused"])
    assert gateway.store.held() == 0
    assert gateway.store.lines() == []
    assert gateway.tiers.requests == []


@pytest.mark.parametrize("stream", [False, True])
def test_leaving_before_the_first_token_costs_the_prompt(gateway: Gateway, stream: bool) -> None:
    gateway.tiers.hangs = True
    # Or the engine might have said all of it before the client leaves.
    gateway.tiers.step_delay_s = 0.01
    hang_up(gateway.endpoint, stream=stream)
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["disconnected"]
    assert gateway.store.holds()[0]["disconnected_us"] is not None
    assert gateway.store.tokens() == journal(gateway)
    assert gateway.store.held() == 0


def test_leaving_mid_stream_costs_what_was_computed_until_the_abort(gateway: Gateway) -> None:
    gateway.tiers.step_delay_s = 0.01
    begin(gateway.endpoint).close()
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["disconnected"]
    assert gateway.store.tokens() == journal(gateway)
    assert 0 < gateway.store.tokens()["output"] < 1000
    assert gateway.store.lines(waste=True) == []


def test_leaving_after_the_last_token_is_a_success(gateway: Gateway, monkeypatch) -> None:
    ledger = gateway.office.ledger
    monkeypatch.setattr(ledger, "settle", late(ledger.settle, 0.5))
    stream = begin(gateway.endpoint, max_tokens=5)
    eventually(lambda: gateway.tiers.engine.stats().generated_tokens_total == 5)
    time.sleep(0.05)
    stream.close()
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["completed"]
    assert gateway.store.tokens()["output"] == 5


def test_lost_counts_are_settled_by_the_sweeper_at_the_team_s_cost(serve) -> None:
    gateway = serve(accounting={"hold_lease_s": 2})
    gateway.tiers.hangs, gateway.tiers.items = True, 3
    gateway.tiers.abort_error = Overloaded("a group did not answer")
    stream = begin(gateway.endpoint)
    stream.close()
    eventually(lambda: gateway.tiers.closed != [])
    gateway.tiers.abort_error = None
    assert gateway.store.outcomes() == [None]
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["recovered"]
    assert gateway.store.tokens() == journal(gateway)
    assert gateway.store.held() == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (Overloaded("all groups are busy"), 503, "refused"),
        (GroupError("rank 1 of 4 lost its group"), 502, "failed"),
        (ZeroDivisionError(), 500, "failed"),
    ],
)
def test_a_failure_before_the_first_token_costs_nothing(
    gateway: Gateway, stream, error, status, outcome
) -> None:
    gateway.tiers.generate_error = error
    assert gateway.endpoint.chat(stream=stream).status_code == status
    assert gateway.store.outcomes() == [outcome]
    assert gateway.store.lines() == []
    assert gateway.store.held() == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_half_way_is_our_loss(gateway: Gateway, stream: bool) -> None:
    gateway.tiers.generate_error, gateway.tiers.items = GenerationFailed("lost"), 3
    gateway.endpoint.chat(stream=stream, **LONG)
    eventually(gateway.store.closed)
    assert gateway.store.outcomes() == ["failed"]
    assert gateway.store.lines() == []
    assert gateway.store.tokens(waste=True) == journal(gateway)
    assert gateway.store.held() == 0


def test_a_defect_while_answering_leaves_no_hold_behind(gateway: Gateway, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("serve_app.gateway.scribe.BodyScribe.finish", broken)
    assert gateway.endpoint.chat(max_tokens=2).status_code == 500
    assert gateway.store.outcomes() == ["failed"]
    assert gateway.store.held() == 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_does_not_hang_while_the_accounts_are_away(gateway, monkeypatch, stream) -> None:
    ledger = gateway.office.ledger
    monkeypatch.setattr(ledger, "settle", late(ledger.settle, 3))
    began = time.monotonic()
    assert gateway.endpoint.chat(stream=stream, max_tokens=2).status_code == 200
    assert 0.9 < time.monotonic() - began < 2.5
    assert gateway.store.outcomes() == [None]
    eventually(lambda: gateway.store.outcomes() == ["completed"])


def test_stopping_lets_answers_end(gateway: Gateway) -> None:
    gateway.tiers.step_delay_s = 0.02
    stream = begin(gateway.endpoint, max_tokens=10)
    gateway.stop_soon()
    assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
    gateway.stop()
    assert gateway.store.outcomes() == ["completed"]
    assert gateway.store.held() == 0


@pytest.mark.parametrize(("patience_s", "outcome"), [(10.0, "completed"), (0.1, "failed")])
def test_stopping_waits_for_requests_without_a_client_for_a_while(
    gateway: Gateway, monkeypatch, patience_s, outcome
) -> None:
    monkeypatch.setattr("serve_app.gateway.api.DRAIN_S", patience_s)
    gateway.tiers.step_delay_s = 0.02
    stream = gateway.endpoint.openai().chat.completions.create(
        model=gateway.endpoint.model,
        messages=QUESTION,
        stream=True,
        extra_headers={"Idempotency-Key": "k"},
        extra_body={"max_tokens": 30, "ignore_eos": True},
    )
    next(iter(stream))
    stream.close()
    gateway.stop()
    assert gateway.store.outcomes() == [outcome]
    assert bool(gateway.store.lines()) == (outcome == "completed")
    assert gateway.store.held() == 0
    assert [row["state"] for row in gateway.store.rows("SELECT * FROM replays")] == (
        ["done"] if outcome == "completed" else []
    )
