from __future__ import annotations

import json

from typer.testing import CliRunner

from ops import cli


def test_a_key_from_made_to_revoked(system):
    made = system("keys", "create", "ci", "--team", "research", "--budget", "$10")
    secret = made.stdout.strip()
    assert secret.startswith("sk-pixtral-")
    assert "member of default/research" in made.stderr
    assert "not shown again" in made.stderr
    system.secrets["ci"] = secret
    assert "role member may not" in system.refused("teams", "list", role="ci")
    (key,) = [key for key in system.json("keys", "list") if key["name"] == "ci"]
    assert key["limits"]["budget_usd"] == "10"
    assert secret not in system.said("keys", "list")

    new = system.json("keys", "rotate", key["public_id"], "--overlap-s", "60")
    assert new["replaces"] == key["public_id"]
    said = system.said("keys", "revoke", key["public_id"])
    assert said == f"key {key['public_id']} (ci~{key['public_id']}) is revoked\n"
    system.portal.clock.now_us += 2_000_000
    assert "invalid_api_key" in system.refused("teams", "list", role="ci")


def test_scope_and_lifetime(system):
    made = system.json(
        "keys", "create", "x", "--team", "research", "--role", "lead",
        "--model", "pixtral", "--endpoint", "chat", "--endpoint", "usage", "--expires-days", "3650",
    )  # fmt: skip
    assert (made["role"], made["models"]) == ("lead", ["pixtral"])
    assert made["endpoints"] == ["chat", "usage"]
    assert made["expires_at"] is not None
    listed = system.said("keys", "list", "--team", "research")
    assert "pixtral, chat, usage" in listed
    assert "everything" in listed


def test_refusals_are_one_line(system):
    for words, reason in (
        (("keys", "create", "x", "--team", "nobody"), "no team 'nobody'"),
        (("keys", "create", "x", "--team", "research", "--role", "king"), "role"),
        (("keys", "create", "member", "--team", "research"), "already"),
        (("keys", "create", "x", "--team", "research", "--budget", "lots"), "--budget lots"),
        (("keys", "revoke", "nobody"), "no key 'nobody'"),
        (("keys", "rotate", "nobody", "--overlap-s", "-1"), "overlap_s"),
    ):
        assert reason in system.refused(*words), words


def test_the_key_of_the_environment_is_used(system, monkeypatch):
    monkeypatch.setenv("PIXTRAL_API_KEY", system.secrets["finance"])
    result = CliRunner().invoke(cli.app, ["teams", "list", "--json", "--url", system.url])
    assert len(json.loads(result.stdout)) == 2
