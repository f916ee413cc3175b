from __future__ import annotations

import pytest

from serve_app.accounting.keys import PREFIX


async def created(client, **body):
    answer = await client.post("/admin/keys", json={"team": "default/research", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_secret_is_shown_once_and_works(portal):
    answer = await portal.admin.post("/admin/keys", json={"team": "research", "name": "ci"})
    made = answer.json()
    assert made["secret"].startswith(PREFIX)
    assert answer.headers["cache-control"] == "no-store"
    assert (made["role"], made["state"], made["models"]) == ("member", "active", [])
    client = portal.client(made["secret"])
    assert (await client.get("/v1/usage")).status_code == 200
    await client.aclose()
    listed = await portal.admin.get("/admin/keys", params={"team": "research"})
    assert "secret" not in listed.text
    assert made["secret"] not in listed.text
    (key,) = [key for key in listed.json()["data"] if key["name"] == "ci"]
    assert key == {name: value for name, value in made.items() if name != "secret"}


async def test_scope_lifetime_and_limits(portal):
    made = await created(
        portal.admin,
        name="batch",
        models=["pixtral"],
        endpoints=["chat"],
        expires_at="2026-12-01T01:00:00+01:00",
        limits={"budget_usd": "0.5", "max_pictures": 0},
    )
    assert (made["models"], made["endpoints"]) == (["pixtral"], ["chat"])
    assert made["expires_at"] == "2026-12-01T00:00:00Z"
    assert (made["limits"]["budget_usd"], made["limits"]["max_pictures"]) == ("0.5", 0)


async def test_rotation_and_revocation(portal):
    first = await created(portal.admin, name="ci")
    path = f"/admin/keys/{first['public_id']}"
    second = await portal.made(f"{path}/rotate", {"overlap_s": 60})
    assert second["replaces"] == first["public_id"]
    assert second["secret"] != first["secret"]
    assert (await portal.admin.post(f"{path}/rotate", json={})).status_code == 409
    revoked = (await portal.admin.post(f"{path}/revoke")).json()
    assert (revoked["state"], revoked["revoked_at"]) == ("revoked", "2026-11-23T00:00:00Z")
    client = portal.client(first["secret"])
    assert (await client.get("/v1/usage")).status_code == 401
    await client.aclose()


async def test_a_lead_manages_its_own_teams_keys_up_to_its_role(portal):
    made = await created(portal.lead, name="ci", role="lead")
    assert (await portal.lead.post(f"/admin/keys/{made['public_id']}/revoke")).status_code == 200
    (admin_key,) = [
        key for key in (await portal.got("/admin/keys"))["data"] if key["role"] == "admin"
    ]
    for path, body in (
        ("/admin/keys", {"team": "default/research", "name": "x", "role": "admin"}),
        ("/admin/keys", {"team": "vision", "name": "x"}),
        (f"/admin/keys/{admin_key['public_id']}/revoke", None),
        (f"/admin/keys/{admin_key['public_id']}/rotate", {}),
    ):
        answer = await portal.lead.post(path, json=body)
        assert answer.status_code == 403, path


async def test_a_scoped_lead_hands_out_no_more_than_it_has(portal):
    wide = await created(portal.lead, name="wide")
    scope = {"endpoints": ["chat", "admin"]}
    lead = portal.client(
        (await created(portal.lead, name="scoped", role="lead", **scope))["secret"]
    )
    body = {"team": "default/research", "name": "new"}
    for path, sent, status in (
        ("/admin/keys", body, 403),
        ("/admin/keys", body | {"endpoints": ["chat", "usage"]}, 403),
        (f"/admin/keys/{wide['public_id']}/rotate", {}, 403),
        ("/admin/keys", body | {"endpoints": ["chat"]}, 201),
    ):
        answer = await lead.post(path, json=sent)
        assert answer.status_code == status, (path, sent, answer.text)
    await lead.aclose()


async def test_a_lead_lists_its_own_team_only(portal):
    teams = {key["team"] for key in (await portal.lead.get("/admin/keys")).json()["data"]}
    assert teams == {"research"}
    assert {key["team"] for key in (await portal.got("/admin/keys"))["data"]} > teams
    other = await portal.lead.get("/admin/keys", params={"team": "vision"})
    assert other.status_code == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/admin/keys", {"team": "nobody", "name": "x"}, 404),
        ("POST", "/admin/keys", {"team": "research", "name": "member"}, 409),
        (
            "POST",
            "/admin/keys",
            {"team": "research", "name": "x", "expires_at": "2020-01-01T00:00:00Z"},
            400,
        ),
        ("POST", "/admin/keys/nobody/revoke", None, 404),
        ("POST", "/admin/keys/nobody/rotate", {}, 404),
        ("GET", "/admin/keys?team=nobody", None, 404),
        ("PATCH", "/admin/keys/nobody/limits", {}, 404),
    ],
)
async def test_refusals(portal, method, path, body, status):
    answer = await portal.admin.request(method, path, json=body)
    assert answer.status_code == status, answer.text


async def test_a_keys_limits_change(portal):
    made = await created(portal.admin, name="ci")
    path = f"/admin/keys/{made['public_id']}/limits"
    answer = await portal.admin.patch(path, json={"requests_per_minute": 5})
    assert answer.json()["requests_per_minute"] == 5
