from __future__ import annotations

from tests.serve_app.gateway.admin.conftest import ALERT_HOST


async def test_a_team_is_made_limited_and_listed(portal):
    made = await portal.made("/admin/teams", {"name": "ads"})
    assert (made["name"], made["organisation"]) == ("ads", "default")
    assert made["created_at"] == "2026-11-23T00:00:00Z"
    limits = {
        "budget_usd": "1234.500000001",
        "requests_per_minute": 60,
        "weight": 3,
        "alert_percents": [80, 50],
        "alert_url": f"https://{ALERT_HOST}/secret-path",
    }
    answer = await portal.admin.patch("/admin/teams/ads/limits", json=limits)
    assert answer.status_code == 200
    shown = answer.json()
    assert shown["budget_usd"] == "1234.500000001"
    assert (shown["requests_per_minute"], shown["max_concurrent"]) == (60, None)
    assert shown["weight"] == 3
    assert shown["alert_percents"] == [50, 80]
    assert "secret-path" not in answer.text
    (listed,) = [t for t in (await portal.got("/admin/teams"))["data"] if t["name"] == "ads"]
    assert listed["limits"] == shown
    assert listed["standing"] == {
        "month": "2026-11",
        "posted_usd": "0",
        "held_usd": "0",
        "remaining_usd": "1234.500000001",
        "concurrent": 0,
    }


async def test_only_the_limits_that_were_sent_change(portal):
    path = "/admin/teams/default/research/limits"
    await portal.admin.patch(path, json={"budget_usd": "5", "max_concurrent": 3})
    after = (await portal.admin.patch(path, json={"budget_usd": None})).json()
    assert (after["budget_usd"], after["max_concurrent"]) == (None, 3)


async def test_an_organisation_binds_its_teams(portal):
    await portal.made("/admin/organisations", {"name": "acme"})
    await portal.made("/admin/teams", {"name": "research", "organisation": "acme"})
    answer = await portal.admin.patch("/admin/organisations/acme/limits", json={"budget_usd": "10"})
    assert answer.json()["budget_usd"] == "10"
    listed = (await portal.got("/admin/organisations"))["data"]
    assert [each["name"] for each in listed] == ["acme", "default"]
    ambiguous = await portal.admin.patch("/admin/teams/research/limits", json={})
    assert ambiguous.status_code == 400
    assert "acme/research or default/research" in ambiguous.json()["error"]["message"]


async def test_refusals(portal):
    for method, path, body, status in (
        ("POST", "/admin/teams", {"name": "research"}, 409),
        ("POST", "/admin/teams", {"name": "x", "organisation": "nobody"}, 404),
        ("POST", "/admin/teams", {"name": "=1+1"}, 400),
        ("POST", "/admin/organisations", {"name": "default"}, 409),
        ("PATCH", "/admin/teams/nobody/limits", {}, 404),
        ("PATCH", "/admin/organisations/nobody/limits", {}, 404),
        ("PATCH", "/admin/teams/research/limits", {"alert_url": "http://169.254.169.254/"}, 400),
        ("PATCH", "/admin/teams/research/limits", {"requests_per_minute": 0}, 400),
        ("PATCH", "/admin/teams/research/limits", {"weight": 0}, 400),
        ("PATCH", "/admin/organisations/default/limits", {"weight": 2}, 400),
    ):
        answer = await portal.admin.request(method, path, json=body)
        assert answer.status_code == status, answer.text


async def test_a_lead_sees_its_own_team_and_what_it_used(portal):
    await portal.books.request(portal.key, text=10)
    await portal.books.hold(portal.key)
    (own,) = (await portal.lead.get("/admin/teams")).json()["data"]
    assert own["name"] == "research"
    assert own["standing"]["posted_usd"] == "0.00002"
    assert own["standing"]["held_usd"] == "0.01"
    assert (own["standing"]["remaining_usd"], own["standing"]["concurrent"]) == (None, 1)
