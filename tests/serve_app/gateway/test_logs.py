"""Nothing that a caller sends in confidence is ever logged, or told to another."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import httpx2
import openai
import pytest

from serve_app.errors import GenerationFailed
from serve_app.log import blanked, logger
from tests.serve_app.gateway.client_cases import QUESTION, picture
from tests.serve_app.gateway.conftest import KEY, Gateway
from tests.serve_app.gateway.store import eventually

CANARY = "canary-7f3a91"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-pixtral-abc_DEF-123",
        "Authorization: Bearer hunter2hunter2",
        f"data:image/png;base64,{base64.b64encode(b'x' * 200).decode()}",
        "https://example.com/cat.png?token=hunter2hunter2",
        "postgresql://user:hunter2hunter2@host/name",
        base64.b64encode(b"hunter2" * 20).decode(),
    ],
)
def test_what_looks_secret_is_blanked(secret: str) -> None:
    told = blanked(f"before {secret} after")
    assert "[blanked]" in told
    assert told.startswith("before ")
    assert told.endswith(" after")
    for part in ("abc_DEF", "hunter2", "aHVudGVy", "eHh4"):
        assert part not in told


def test_what_helps_is_kept() -> None:
    text = "request 01932a5c-7d3e-7cc2-9b51-0e8a6f2d4c11 of team research took 31 ms"
    assert blanked(text) == text


def test_an_error_is_told_by_its_stack_not_its_words(caplog) -> None:
    def broken() -> None:
        raise ValueError(CANARY)

    log = logger("serve_app.test").bind(request_id="r", team="t")
    with caplog.at_level(logging.INFO):
        try:
            broken()
        except ValueError as error:
            log.error("request failed", error=error)
        log.info("with values", url=f"https://x/?q={CANARY}")
    assert CANARY not in caplog.text
    assert "ValueError" in caplog.text
    assert "broken" in caplog.text
    assert "request_id=r" in caplog.text
    assert "team=t" in caplog.text


def sends_canaries(gateway: Gateway) -> list[str]:
    """All kinds of requests, good and bad, with a canary wherever a caller can put one. Returns
    what came back where it was an error."""
    said: list[str] = []
    text = [{"role": "user", "content": f"My password is {CANARY}."}]
    encoded = base64.b64encode(picture(8, 8) + CANARY.encode() * 20).decode()

    def send(path: str = "/v1", headers: dict[str, str] | None = None, **fields: Any) -> None:
        body = {"model": gateway.endpoint.model, "messages": text, "max_tokens": 2, **fields}
        answer = gateway.endpoint.post(f"{path}/chat/completions", body, headers=headers or {})
        if answer.status_code != 200:
            said.append(answer.text)

    send()
    send("/mistral/v1", stream=True)
    send(headers={"Idempotency-Key": CANARY})
    send(headers={"Idempotency-Key": CANARY}, max_tokens=3)
    send(headers={"Idempotency-Key": f"{CANARY} {CANARY}"})
    send(headers={"Authorization": f"Bearer sk-pixtral-{CANARY}-{CANARY}"})
    send(headers={"Authorization": f"Basic {CANARY}"})
    send(temperature=9)
    send(stop=[CANARY] * 99)
    send(messages=[*text, {"role": "wizard", "content": "x"}])
    part = {"type": "image_url", "image_url": f"data:image/png;base64,{encoded}"}
    send(messages=[{"role": "user", "content": [part]}])
    part = {"type": "image_url", "image_url": f"https://example.com/{CANARY}.png?key={CANARY}"}
    send(messages=[{"role": "user", "content": [part]}])
    answer = gateway.endpoint.post("/v1/chat/completions", f'{{"{CANARY}": '.encode())
    said.append(answer.text)
    said.append(gateway.endpoint.get(f"/v1/nowhere?key={CANARY}").text)
    for error in (RuntimeError(f"prompt was {CANARY}"), GenerationFailed("the group was lost")):
        for items in (0, 1):
            gateway.tiers.generate_error, gateway.tiers.items = error, items
            send()
            send(stream=True)
    gateway.tiers.generate_error = None
    gateway.tiers.prepare_error = ValueError(CANARY)
    send()
    gateway.tiers.prepare_error = None
    gateway.tiers.hangs = True
    with pytest.raises(openai.APITimeoutError):
        gateway.endpoint.openai(timeout=0.5).chat.completions.create(
            model=gateway.endpoint.model, messages=text
        )
    gateway.tiers.hangs = False
    return said


def test_canaries_stay_out_of_logs_and_errors(gateway: Gateway, caplog) -> None:
    # Other libraries' too: what they log of us at debug level is not ours to keep quiet.
    with caplog.at_level(logging.DEBUG, logger="serve_app"):
        said = sends_canaries(gateway)
        eventually(gateway.store.closed)
    logged = "\n".join(record.getMessage() + str(record.__dict__) for record in caplog.records)
    assert len(said) >= 12
    assert "request settled" in logged
    for where in (logged, *said):
        assert CANARY not in where
        assert KEY not in where
        assert base64.b64encode(CANARY.encode()).decode()[:12] not in where


def test_a_settled_request_is_one_line_with_request_and_team(gateway: Gateway, caplog) -> None:
    with caplog.at_level(logging.INFO, logger="serve_app"):
        answer = gateway.endpoint.chat(max_tokens=3, ignore_eos=True)
    [line] = [record.getMessage() for record in caplog.records if "settled" in record.msg]
    assert f"request_id={answer.headers['x-request-id']}" in line
    assert "team=default" in line
    assert "outcome=completed" in line
    assert "completion_tokens=3" in line


def test_a_stored_body_is_json_for_every_client(gateway: Gateway) -> None:
    answer = httpx2.post(
        f"{gateway.endpoint.url}/v1/chat/completions",
        json={"model": gateway.endpoint.model, "messages": QUESTION, "max_tokens": 1},
        headers={"Authorization": f"Bearer {KEY}"},
    )
    assert json.loads(answer.content)["object"] == "chat.completion"
    assert int(answer.headers["content-length"]) == len(answer.content)
