"""/metrics says what the ledger says, to whoever may know."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update

from serve_app.accounting.schema import holds
from serve_app.config import ConfigError, parse_config
from serve_app.gateway.edge import Edge
from serve_app.gateway.metrics_route import metrics_routes
from tests.serve_app.conftest import store_url

__all__ = ["store_url"]


_LABELS = ("organisation", "team", "model", "kind", "outcome", "payer")


def app(portal, host="127.0.0.1", token_file=None):
    config = parse_config(
        {
            "model": {"path": "/models/pixtral"},
            "gateway": {"host": host},
            "accounting": {"metrics_token_file": token_file},
        }
    )
    made = FastAPI(docs_url=None, redoc_url=None)
    made.include_router(metrics_routes(portal.office, config, clock=portal.clock))
    made.add_middleware(Edge, untrained=False)
    return made


async def scraped(portal, token=None, **settings):
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app(portal, **settings)), base_url="http://gateway"
    ) as client:
        return await client.get("/metrics", headers=headers)


async def samples(portal):
    answer = await scraped(portal)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *(sample.labels[name] for name in _LABELS if name in sample.labels)): (
            sample.value
        )
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_the_ledger_as_metrics(portal):
    await portal.admin.patch("/admin/teams/research/limits", json={"budget_usd": "5"})
    await portal.books.request(
        portal.key, text=10, output=2, waste={"output": 3, "rejected_draft": 4}
    )
    await portal.books.request(portal.key, "2026-10-31", text=5)
    await portal.books.request(portal.key, audited=False)
    await portal.books.hold(portal.key)
    found = await samples(portal)
    research = ("default", "research")
    assert found["pixtral_ledger_tokens_total", *research, "pixtral", "text", "team"] == 15
    assert found["pixtral_ledger_tokens_total", *research, "pixtral", "output", "waste"] == 3
    drafts = (*research, "pixtral", "rejected_draft")
    assert found["pixtral_ledger_tokens_total", *drafts, "waste"] == 4
    assert found["pixtral_ledger_nano_usd_total", *drafts, "waste"] == 24_000
    assert ("pixtral_ledger_tokens_total", *drafts, "team") not in found
    assert found["pixtral_ledger_nano_usd_total", *research, "pixtral", "output", "team"] == 12_000
    assert found["pixtral_ledger_month_requests", *research, "pixtral", "completed"] == 2
    assert found["pixtral_ledger_month_requests", *research, "pixtral", "running"] == 1
    assert found["pixtral_ledger_month_posted_nano_usd", *research] == 32_000
    assert found["pixtral_ledger_month_held_nano_usd", *research] == 10_000_000
    assert found["pixtral_ledger_month_budget_nano_usd", *research] == 5_000_000_000
    assert ("pixtral_ledger_month_budget_nano_usd", "default", "vision") not in found
    assert found["pixtral_ledger_month_posted_nano_usd", "default", "vision"] == 0
    assert found["pixtral_ledger_open_holds",] == 1
    assert found["pixtral_ledger_unaudited_holds",] == 1
    assert found["pixtral_ledger_alerts_given_up",] == 0
    assert found["pixtral_ledger_alerts_due",] == 0


async def test_what_waits_in_the_ledger_has_an_age(portal):
    names = (
        "pixtral_ledger_expired_holds",
        "pixtral_ledger_oldest_open_hold_seconds",
        "pixtral_ledger_oldest_unaudited_hold_seconds",
    )
    found = await samples(portal)
    assert [found[name,] for name in names] == [0, 0, 0]
    running = await portal.books.hold(portal.key)
    ended = await portal.books.request(portal.key, audited=False)
    now = portal.clock()
    async with portal.office.database.write() as connection:
        for request_id, values in (
            (running, {"created_us": now - 90_000_000, "lease_until_us": now - 1}),
            (ended, {"created_us": now - 99_000_000, "closed_us": now - 30_000_000}),
        ):
            await connection.execute(
                update(holds).where(holds.c.request_id == request_id).values(values)
            )
    found = await samples(portal)
    assert [found[name,] for name in names] == [1, 90, 30]


async def test_it_is_read_anew_at_each_scrape(portal):
    await portal.books.request(portal.key, text=1)
    name = ("pixtral_ledger_tokens_total", "default", "research", "pixtral", "text", "team")
    assert (await samples(portal))[name] == 1
    await portal.books.request(portal.key, text=1)
    assert (await samples(portal))[name] == 2


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "token"
    file.write_text("scrape-me\n")
    return file


async def test_off_loopback_a_token_is_asked_for(portal, token_file):
    for token, status in ((None, 401), ("wrong", 401), ("", 401), ("scrape-me", 200)):
        for host in ("0.0.0.0", "127.0.0.1"):
            answer = await scraped(portal, token, host=host, token_file=token_file)
            assert answer.status_code == status
    assert (await scraped(portal)).status_code == 200


async def test_off_loopback_without_a_token_nobody_may(portal):
    for token in (None, "", "anything"):
        assert (await scraped(portal, token, host="10.0.0.1")).status_code == 401


async def test_a_token_that_cannot_be_read_is_told_at_the_start(portal, tmp_path):
    (tmp_path / "empty").touch()
    for name, reason in (("absent", "No such file"), ("empty", "is empty")):
        with pytest.raises(ConfigError, match=f"metrics_token_file.*{reason}"):
            app(portal, token_file=Path(tmp_path / name))
