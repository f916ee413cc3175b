from __future__ import annotations

import pytest

from serve_app.accounting.period import start_of
from tests.serve_app.conftest import store_url

__all__ = ["store_url"]


async def test_a_line_is_refunded_in_part_and_then_whole(portal):
    await portal.books.request(portal.key, "2026-10-31", text=100)
    body = {"line_id": 1, "usd": "0.00005", "reason": "slow"}
    made = await portal.made("/admin/adjustments", body)
    assert (made["line_id"], made["usd"], made["month"]) == (1, "0.00005", "2026-11")
    assert made["actor"].startswith("key ")
    rest = await portal.made("/admin/adjustments", {"line_id": 1, "reason": "slow"})
    assert rest["usd"] == "0.00015"
    again = await portal.admin.post("/admin/adjustments", json={"line_id": 1, "reason": "slow"})
    assert again.status_code == 409
    usage = await portal.got("/admin/usage", **{"from": "2026-10"})
    assert usage["total"]["net_usd"] == "0"
    assert (await portal.got("/admin/reconcile"))["agrees"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"line_id": 9, "reason": "x"}, 404),
        ({"line_id": 2**63, "reason": "x"}, 422),
        ({"line_id": 1, "reason": ""}, 422),
        ({"line_id": 1, "usd": "0", "reason": "x"}, 400),
    ],
)
async def test_refunds_that_cannot_be(portal, body, status):
    await portal.books.request(portal.key, text=1)
    answer = await portal.admin.post("/admin/adjustments", json=body)
    assert answer.status_code == status, answer.text


async def test_a_month_is_closed_once_over_and_settled(portal):
    await portal.books.request(portal.key, "2026-10-31", text=100)
    open_month = await portal.got("/admin/months/2026-10")
    assert (open_month["closed_at"], open_month["revenue_usd"]) == (None, "0.0002")
    early = await portal.admin.post("/admin/months/2026-11/close")
    assert early.status_code == 409
    closed = (await portal.admin.post("/admin/months/2026-10/close")).json()
    assert closed["closed_at"] == "2026-11-23T00:00:00Z"
    assert (closed["requests"], closed["lines"], closed["revenue_usd"]) == (1, 1, "0.0002")
    portal.clock.now_us = start_of("2026-11-24")
    assert (await portal.admin.post("/admin/months/2026-10/close")).json() == closed
    assert (await portal.got("/admin/reconcile"))["agrees"]


async def test_a_running_request_keeps_its_month_open(portal):
    await portal.books.hold(portal.key, "2026-10-31")
    answer = await portal.admin.post("/admin/months/2026-10/close")
    assert answer.status_code == 409
    assert (await portal.got("/admin/months/2026-10"))["running"] == 1


async def test_no_such_month(portal):
    for method, path in (("GET", "/admin/months/2026-13"), ("POST", "/admin/months/2026-13/close")):
        assert (await portal.admin.request(method, path)).status_code == 400
