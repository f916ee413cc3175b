from __future__ import annotations

from sqlalchemy import insert, update

from serve_app.accounting.schema import alerts, usage_days
from tests.serve_app.conftest import store_url

__all__ = ["store_url"]


async def test_a_request_in_full(portal):
    request_id = await portal.books.request(
        portal.key,
        "2026-11-03",
        image=50,
        output=5,
        waste={"output": 2, "rejected_draft": 4},
        pictures=1,
    )
    await portal.books.refund(2, 1_000, "2026-11-05", reason="noise")
    answer = await portal.got(f"/admin/requests/{request_id}")
    assert answer["hold"]["request_id"] == request_id
    assert (answer["hold"]["state"], answer["hold"]["outcome"]) == ("settled", "completed")
    assert answer["hold"]["amount_usd"] == "0.01"
    assert answer["hold"]["created_at"] == "2026-11-03T00:00:00Z"
    assert answer["hold"]["disconnected_at"] is None
    lines = [(line["kind"], line["tokens"], line["usd"], line["waste"]) for line in answer["lines"]]
    assert lines == [
        ("image", 50, "0.0001", False),
        ("output", 5, "0.00003", False),
        ("output", 2, "0.000012", True),
        ("rejected_draft", 4, "0.000024", True),
    ]
    (refund,) = answer["adjustments"]
    assert (refund["line_id"], refund["usd"], refund["reason"]) == (2, "0.000001", "noise")
    (tally,) = answer["tallies"]
    assert (tally["group"], tally["image"], tally["output"]) == ("group-a", 50, 7)
    assert tally["rejected_draft"] == 4


async def test_a_lead_finds_its_own_teams_requests_only(portal):
    own = await portal.books.request(portal.key, text=1)
    other = await portal.books.request(await portal.books.key("web", team="ads"), text=1)
    assert (await portal.lead.get(f"/admin/requests/{own}")).status_code == 200
    for request_id in (other, "nobody"):
        answer = await portal.lead.get(f"/admin/requests/{request_id}")
        assert answer.status_code == 404
    assert (await portal.finance.get(f"/admin/requests/{other}")).status_code == 200


async def test_reconcile(portal):
    await portal.books.request(portal.key, text=5)
    await portal.books.hold(portal.key)
    portal.engines = {"group-a": 9}
    answer = await portal.got("/admin/reconcile")
    assert answer == {
        "agrees": True,
        "lines": 1,
        "differences": [],
        "in_flight": [{"month": "2026-11", "running": 1, "held_usd": "0.01", "unaudited": 0}],
        "engines": [],
        "busy_engines": ["group-a"],
    }
    async with portal.office.database.write() as connection:
        await connection.execute(update(usage_days).values(tokens=6))
    answer = await portal.got("/admin/reconcile", month="2026-11")
    (difference,) = answer["differences"]
    assert not answer["agrees"]
    assert (difference["what"], difference["expected"], difference["found"]) == (
        "usage_days tokens",
        5,
        6,
    )
    assert (await portal.got("/admin/reconcile", month="2026-10"))["agrees"]
    assert (await portal.admin.get("/admin/reconcile?month=2026-13")).status_code == 400


async def test_the_audit_log_names_who_changed_what_and_is_paged(portal):
    await portal.made("/admin/teams", {"name": "ads"})
    newest, before, *_ = (await portal.got("/admin/audit"))["data"]
    assert (newest["action"], newest["subject"]) == ("team.create", "team default/ads")
    assert newest["actor"].startswith("key ")
    assert newest["at"] == "2026-11-23T00:00:00Z"
    page = await portal.got("/admin/audit", before_id=newest["id"], limit=1)
    assert page["data"] == [before]


async def test_alerts_of_a_month(portal):
    async with portal.office.database.write() as connection:
        row = {
            "account_id": portal.key.team_id,
            "month": "2026-11",
            "percent": 80,
            "posted_nano_usd": 8_000_000_000,
            "budget_nano_usd": 10_000_000_000,
            "created_us": portal.clock(),
            "next_attempt_us": 0,
        }
        await connection.execute(insert(alerts).values(row))
    (alert,) = (await portal.got("/admin/alerts"))["data"]
    assert (alert["scope"], alert["name"], alert["percent"]) == ("team", "research", 80)
    assert (alert["posted_usd"], alert["budget_usd"]) == ("8", "10")
    assert (alert["delivered_at"], alert["given_up_at"]) == (None, None)
    assert (await portal.got("/admin/alerts", month="2026-10"))["data"] == []
