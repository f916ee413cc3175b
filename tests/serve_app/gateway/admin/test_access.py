"""Every admin route asks for a key, and lets each role do what the table of roles says."""

from __future__ import annotations

import pytest

from serve_app.accounting.roles import Role

# Route -> the roles that may use it (with a body that is otherwise refused as malformed).
ROLES = {
    ("GET", "/admin/organisations"): {"admin", "finance"},
    ("POST", "/admin/organisations"): {"admin"},
    ("PATCH", "/admin/organisations/default/limits"): {"admin"},
    ("GET", "/admin/teams"): {"admin", "finance", "lead"},
    ("POST", "/admin/teams"): {"admin"},
    ("PATCH", "/admin/teams/default/research/limits"): {"admin"},
    ("GET", "/admin/keys"): {"admin", "lead"},
    ("POST", "/admin/keys"): {"admin", "lead"},
    ("POST", "/admin/keys/anything/rotate"): {"admin", "lead"},
    ("POST", "/admin/keys/anything/revoke"): {"admin", "lead"},
    ("PATCH", "/admin/keys/anything/limits"): {"admin"},
    ("GET", "/admin/prices"): {"admin", "finance", "lead"},
    ("POST", "/admin/prices"): {"admin"},
    ("POST", "/admin/adjustments"): {"admin"},
    ("GET", "/admin/months/2026-10"): {"admin", "finance"},
    ("POST", "/admin/months/2026-10/close"): {"admin"},
    ("GET", "/admin/usage"): {"admin", "finance", "lead"},
    ("GET", "/admin/usage/focus"): {"admin", "finance", "lead"},
    ("GET", "/admin/economics"): {"admin", "finance"},
    ("GET", "/admin/requests/anything"): {"admin", "finance", "lead"},
    ("GET", "/admin/reconcile"): {"admin", "finance"},
    ("GET", "/admin/alerts"): {"admin", "finance"},
    ("GET", "/admin/audit"): {"admin", "finance"},
    ("GET", "/admin/groups"): {"admin", "finance"},
    ("GET", "/v1/usage"): {"admin", "finance", "lead", "member"},
}


def test_the_table_is_of_every_route(portal):
    documented = {
        (method.upper(), path)
        for path, methods in portal.app.openapi()["paths"].items()
        for method in methods
    }
    tested = {
        (
            method,
            path.replace("default/research", "{team}")
            .replace("/default/", "/{name}/")
            .replace("2026-10", "{month}")
            .replace("keys/anything", "keys/{public_id}")
            .replace("requests/anything", "requests/{request_id}"),
        )
        for method, path in ROLES
    }
    assert tested == documented


async def test_who_may(portal):
    for (method, path), roles in ROLES.items():
        for role in ("admin", "finance", "lead", "member"):
            answer = await getattr(portal, role).request(method, path, json={"unknown": 1})
            allowed = answer.status_code != 403
            assert allowed == (role in roles), f"{role} {method} {path}: {answer.text}"
            if not allowed:
                assert answer.json()["error"]["code"] == "permission_denied"
        unknown = await portal.nobody.request(method, path, json={})
        assert unknown.status_code == 401


async def test_a_key_for_chat_only_is_no_key_for_admin(portal):
    made = await portal.office.directory.create_key(
        "default/default", "chat", role=Role.ADMIN, endpoints=["chat"], actor="test"
    )
    client = portal.client(made.secret)
    assert (await client.get("/admin/teams")).status_code == 403
    assert (await client.get("/v1/usage")).status_code == 403
    await client.aclose()


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/admin/teams", {"name": "x", "organization": "default"}, "organization"),
        ("/admin/teams", {}, "name"),
        ("/admin/teams", {"name": "a\0b"}, "name"),
        ("/admin/keys", {"team": "research", "name": "x", "role": "king"}, "role"),
        (
            "/admin/keys",
            {"team": "research", "name": "x", "expires_at": "2026-11-23"},
            "expires_at",
        ),
        (
            "/admin/keys",
            {"team": "research", "name": "x", "limits": {"budget_usd": 1.5}},
            "limits.budget_usd",
        ),
        ("/admin/prices", {"model": "m", "text_usd": "2e3", "output_usd": "1"}, "text_usd"),
    ],
)
async def test_a_malformed_body_is_refused_by_field(portal, path, body, param):
    answer = await portal.admin.post(path, json=body)
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == param


async def test_what_was_sent_is_not_repeated(portal):
    """A client's bug may send a secret in the wrong place."""
    for body in ({"name": {"secret": "sk-canary"}}, {"sk": "sk-canary", "name": "x"}):
        answer = await portal.admin.post("/admin/teams", json=body)
        assert answer.status_code == 422
        assert "sk-canary" not in answer.text


async def test_a_body_that_is_too_large_or_no_json(portal):
    large = await portal.admin.post("/admin/teams", content=b"x" * 70_000)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "payload_too_large")
    broken = await portal.admin.post(
        "/admin/teams", content=b"{", headers={"content-type": "application/json"}
    )
    assert broken.status_code == 422


async def test_unknown_query_parameters_are_refused(portal):
    answer = await portal.admin.get("/admin/usage", params={"group": "team"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "group")
