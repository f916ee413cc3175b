"""Organisations, teams, keys and limits, on both stores."""

import asyncio
import hashlib
import json

import pytest
from sqlalchemy import select

from serve_app.accounting import audit
from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.hold import Scope
from serve_app.accounting.limits import Limits
from serve_app.accounting.roles import Role
from serve_app.accounting.schema import keys
from serve_app.errors import Conflict, InvalidRequest, NotFound, Unauthorized
from tests.serve_app.accounting.watch import SECOND_US, Watch

PEPPER = bytes(range(32))
BOOTSTRAP = "sk-pixtral-" + "aB3_-xYz" * 4
HOOK = "https://hooks.example.com/services/T0/the-canary-path"


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def directory(database: Database, watch: Watch) -> Directory:
    made = Directory(database, PEPPER, alert_hosts=["hooks.example.com"], clock=watch)
    await made.ensure_default()
    return made


async def test_the_default_team_is_made_once_even_when_asked_for_at_once(database):
    directories = [Directory(database, PEPPER) for _ in range(3)]
    made = await asyncio.gather(*(directory.ensure_default() for directory in directories))
    assert len({team.id for team in made}) == 1
    assert [team.subject for team in await directories[0].teams()] == ["team default/default"]
    actions = [entry.action for entry in await audit.entries(database)]
    assert actions == ["team.create", "organisation.create"]


async def test_a_key_says_whom_it_bills_and_what_it_is_for(directory, watch):
    organisation = await directory.create_organisation("Labs", actor="me")
    team = await directory.create_team("vision", "Labs", actor="me")
    key = await directory.create_key(
        "vision",
        " ci ",
        role=Role.LEAD,
        models=["pixtral-12b"],
        endpoints=["chat"],
        expires_us=watch() + SECOND_US,
        actor="me",
    )
    principal = await directory.principal(key.secret)
    assert principal.payer.account_ids == (key.info.id, team.id, organisation.id)
    assert (principal.organisation_name, principal.team_name) == ("Labs", "vision")
    assert (principal.key_name, principal.role) == ("ci", Role.LEAD)
    assert (principal.models, principal.endpoints) == (("pixtral-12b",), ("chat",))
    assert principal.expires_us == watch() + SECOND_US
    assert principal.public_id == key.public_id
    assert [key.info] == list(await directory.keys("vision")) == list(await directory.keys())
    assert await directory.key(key.public_id) == key.info


async def test_the_least_picture_limit_of_key_team_and_organisation_counts(directory, watch):
    key = await directory.create_key("default", "ci", actor="me")
    for scope, name, pictures, least in [
        (Scope.ORGANISATION, "default", 5, 5),
        (Scope.KEY, key.public_id, 7, 5),
        (Scope.TEAM, "default", 3, 3),
        (Scope.KEY, key.public_id, 0, 0),
    ]:
        await directory.change_limits(scope, name, {"max_pictures": pictures}, actor="me")
        watch.turn(1)
        assert (await directory.principal(key.secret)).max_pictures == least


async def test_a_team_has_a_weight_and_its_keys_go_by_it(directory, watch):
    key = await directory.create_key("default", "ci", actor="me")
    assert (await directory.principal(key.secret)).weight == 1
    for asked, weight in ((3, 3), (None, 1)):
        await directory.change_limits(Scope.TEAM, "default", {"weight": asked}, actor="me")
        watch.turn(1)
        assert (await directory.principal(key.secret)).weight == weight
    assert (await directory.team("default")).limits.weight is None


async def test_only_a_team_has_a_weight(directory):
    key = await directory.create_key("default", "ci", actor="me")
    for scope, name in ((Scope.KEY, key.public_id), (Scope.ORGANISATION, "default")):
        with pytest.raises(InvalidRequest, match=f"no {scope} does"):
            await directory.change_limits(scope, name, {"weight": 2}, actor="me")
    with pytest.raises(InvalidRequest, match="weight"):
        await directory.create_key("default", "other", limits=Limits(weight=2), actor="me")


async def test_a_rotated_key_and_its_successor_bill_the_same_team_until_the_overlap_ends(
    directory, watch
):
    limits = Limits(budget_nano_usd=5, requests_per_minute=9)
    old = await directory.create_key(
        "default", "ci", role=Role.LEAD, models=["m"], limits=limits, actor="me"
    )
    new = await directory.rotate_key(old.public_id, 60, actor="me")
    assert (new.info.name, new.info.role, new.info.models) == ("ci", Role.LEAD, ("m",))
    assert new.info.limits == limits
    assert new.info.replaces == old.public_id
    assert (await directory.key(old.public_id)).name == f"ci~{old.public_id}"

    payers = [(await directory.principal(key.secret)).payer for key in (old, new)]
    assert payers[0].team_id == payers[1].team_id
    assert payers[0].key_id != payers[1].key_id

    watch.turn(60)
    with pytest.raises(Unauthorized):
        await directory.principal(old.secret)
    assert (await directory.principal(new.secret)).payer == payers[1]


async def test_an_overlap_never_lengthens_a_life_and_the_successor_lives_as_long(directory, watch):
    old = await directory.create_key(
        "default", "a", expires_us=watch() + 100 * SECOND_US, actor="me"
    )
    watch.turn(40)
    new = await directory.rotate_key(old.public_id, 3_600, actor="me")
    assert new.info.expires_us == watch() + 100 * SECOND_US
    assert (await directory.key(old.public_id)).expires_us == old.info.expires_us


async def test_what_has_ended_or_was_replaced_is_not_rotated(directory, watch):
    old = await directory.create_key("default", "a", actor="me")
    new = await directory.rotate_key(old.public_id, 60, actor="me")
    with pytest.raises(Conflict, match=new.public_id):
        await directory.rotate_key(old.public_id, 60, actor="me")
    watch.turn(60)
    with pytest.raises(Conflict, match="expired"):
        await directory.rotate_key(old.public_id, 60, actor="me")
    await directory.revoke_key(new.public_id, actor="me")
    with pytest.raises(Conflict, match="revoked"):
        await directory.rotate_key(new.public_id, 60, actor="me")
    with pytest.raises(NotFound):
        await directory.rotate_key("unknown", 60, actor="me")


@pytest.mark.parametrize("overlap_s", [-1, 30 * 86_400 + 1])
async def test_an_overlap_has_bounds(directory, overlap_s):
    key = await directory.create_key("default", "a", actor="me")
    with pytest.raises(InvalidRequest, match="overlap_s"):
        await directory.rotate_key(key.public_id, overlap_s, actor="me")


async def test_two_rotations_at_once_make_one_successor(directory, database):
    key = await directory.create_key("default", "a", actor="me")
    other = Directory(database, PEPPER)
    results = await asyncio.gather(
        *(each.rotate_key(key.public_id, 60, actor="me") for each in (directory, other)),
        return_exceptions=True,
    )
    assert sorted(isinstance(result, Conflict) for result in results) == [False, True]
    assert len(await directory.keys()) == 2


async def test_revoking_twice_changes_nothing(directory, database, watch):
    key = await directory.create_key("default", "a", actor="me")
    revoked = await directory.revoke_key(key.public_id, actor="me")
    assert revoked.state(watch()) == "revoked"
    watch.turn(5)
    assert await directory.revoke_key(key.public_id, actor="me") == revoked
    assert [entry.action for entry in await audit.entries(database)].count("key.revoke") == 1


async def test_the_bootstrap_key_is_taken_in_once(directory, database):
    directories = [directory, Directory(database, PEPPER)]
    made = await asyncio.gather(
        *(each.import_key(BOOTSTRAP, name="bootstrap") for each in directories)
    )
    assert made[0] == made[1] == (await directory.keys())[0]
    assert len(await directory.keys()) == 1
    principal = await directory.principal(BOOTSTRAP)
    assert (principal.role, principal.team_name) == (Role.ADMIN, "default")


async def test_another_bootstrap_key_of_that_name_replaces_the_first(directory, watch):
    first = await directory.import_key(BOOTSTRAP, name="bootstrap")
    second = await directory.import_key(BOOTSTRAP + "x", name="bootstrap")
    assert (second.name, second.replaces) == ("bootstrap", first.public_id)
    assert (await directory.principal(BOOTSTRAP + "x")).payer.key_id == second.id
    with pytest.raises(Unauthorized):
        await directory.principal(BOOTSTRAP)
    with pytest.raises(Conflict, match="revoked"):
        await directory.import_key(BOOTSTRAP, name="bootstrap")


async def test_a_key_of_our_own_making_is_taken_in_under_its_public_id(directory, database):
    elsewhere = Directory(database, bytes(32))
    made = await elsewhere.create_key("default", "a", actor="me")
    with pytest.raises(Conflict, match=made.public_id):  # same public id, another pepper
        await directory.import_key(made.secret, name="b")
    assert await elsewhere.import_key(made.secret, name="a") == made.info
    with pytest.raises(InvalidRequest, match="token"):
        await directory.import_key("sk-pixtral-short", name="c")


async def test_a_gateway_without_keys_bills_an_account_that_no_key_opens(directory):
    principal = await directory.anonymous()
    assert principal == await directory.anonymous()
    assert (principal.team_name, principal.key_name) == ("default", "anonymous")
    assert principal.role is Role.MEMBER
    for token in ("anonymous", "sk-pixtral-anonymous", "", "sk-pixtral-anonymous_" + "0" * 38):
        with pytest.raises(Unauthorized):
            await directory.principal(token)
    with pytest.raises(Conflict, match="no secret"):
        await directory.rotate_key("anonymous", 0, actor="me")
    await directory.revoke_key("anonymous", actor="me")
    with pytest.raises(Conflict, match="revoked"):
        await directory.anonymous()


async def test_names_are_unique_below_their_parent_only(directory):
    await directory.create_organisation("a", actor="me")
    await directory.create_organisation("b", actor="me")
    for organisation in ("a", "b"):
        await directory.create_team("x", organisation, actor="me")
    with pytest.raises(InvalidRequest, match="a/x or b/x"):
        await directory.team("x")
    assert (await directory.team("b/x")).organisation == "b"
    for again in (
        directory.create_organisation(" a ", actor="me"),
        directory.create_team("x", "a", actor="me"),
    ):
        with pytest.raises(Conflict, match="already") as caught:
            await again
        assert caught.value.param == "name"
    for team in ("a/x", "b/x"):
        await directory.create_key(team, "ci", actor="me")
    with pytest.raises(Conflict, match="already"):
        await directory.create_key("a/x", "ci", actor="me")


@pytest.mark.parametrize(
    "name", ["", "  ", "a" * 65, "a/b", "a~b", "a\nb", "a\u202eb", "=1+1", "-x"]
)
async def test_a_name_that_would_mislead_is_refused(directory, name):
    for refused in (
        directory.create_organisation(name, actor="me"),
        directory.create_team(name, actor="me"),
        directory.create_key("default", name, actor="me"),
    ):
        with pytest.raises(InvalidRequest) as caught:
            await refused
        assert caught.value.param == "name"


async def test_what_is_not_there_is_not_found(directory):
    for missing in (
        directory.team("nobody"),
        directory.team("nobody/default"),
        directory.organisation("nobody"),
        directory.key("nobody"),
        directory.keys("nobody"),
        directory.create_team("x", "nobody", actor="me"),
        directory.create_key("nobody", "x", actor="me"),
        directory.revoke_key("nobody", actor="me"),
        directory.change_limits(Scope.KEY, "nobody", {}, actor="me"),
        directory.import_key(BOOTSTRAP, team="nobody", name="x"),
    ):
        with pytest.raises(NotFound):
            await missing


async def test_bad_terms_of_a_key_are_refused_by_name(directory, watch):
    for field, terms in {
        "endpoints": {"endpoints": ["chat", "root"]},
        "models": {"models": [""]},
        "expires_us": {"expires_us": watch()},
        "alert_url": {"limits": Limits(alert_url="http://169.254.169.254/x")},
    }.items():
        with pytest.raises(InvalidRequest) as caught:
            await directory.create_key("default", "x", actor="me", **terms)
        assert caught.value.param == field
    assert await directory.keys() == ()


async def test_limits_are_replaced_whole_or_by_name(directory):
    whole = Limits(budget_nano_usd=10, requests_per_minute=2, alert_percents=(80,), alert_url=HOOK)
    await directory.set_limits(Scope.TEAM, "default", whole, actor="me")
    assert (await directory.team("default")).limits == whole

    changes = {"requests_per_minute": None, "max_concurrent": 3}
    changed = await directory.change_limits(Scope.TEAM, "default", changes, actor="me")
    assert changed == (await directory.team("default")).limits
    assert (changed.budget_nano_usd, changed.requests_per_minute) == (10, None)
    assert (changed.max_concurrent, changed.alert_url) == (3, HOOK)

    await directory.set_limits(Scope.TEAM, "default", Limits(), actor="me")
    assert (await directory.team("default")).limits == Limits()


@pytest.mark.parametrize("scope", [Scope.WASTE, Scope.REVENUE])
async def test_the_platforms_own_accounts_have_no_limits(directory, scope):
    with pytest.raises(InvalidRequest, match="scope"):
        await directory.change_limits(scope, scope.value, {"budget_nano_usd": 1}, actor="me")


async def test_an_alert_address_must_be_one_that_the_operator_listed(directory):
    for url in (
        "http://169.254.169.254/latest",
        "http://127.0.0.1:8265/",
        "https://hooks.example.com:8443/",
        "https://hooks.example.com@evil.test/",
    ):
        with pytest.raises(InvalidRequest) as caught:
            await directory.change_limits(Scope.TEAM, "default", {"alert_url": url}, actor="me")
        assert caught.value.param == "alert_url"
    assert (await directory.team("default")).limits == Limits()


async def test_every_change_is_audited_with_it_and_no_secret_ever_is(directory, database, watch):
    await directory.create_organisation("Labs", actor="alice")
    await directory.create_team("vision", "Labs", actor="alice")
    changes = {"budget_nano_usd": 7, "alert_url": HOOK}
    await directory.change_limits(Scope.TEAM, "vision", changes, actor="bob")
    await directory.change_limits(Scope.TEAM, "vision", {"alert_url": HOOK + "2"}, actor="bob")
    await directory.change_limits(Scope.TEAM, "vision", {"alert_url": HOOK + "2"}, actor="bob")
    key = await directory.create_key("vision", "ci", role=Role.LEAD, actor="alice")
    new = await directory.rotate_key(key.public_id, 60, actor="carol")
    await directory.revoke_key(new.public_id, actor="carol")
    await directory.import_key(BOOTSTRAP, name="bootstrap")
    with pytest.raises(Conflict):
        await directory.create_team("vision", "Labs", actor="mallory")

    log = await audit.entries(database)
    shown = [(entry.actor, entry.action, entry.subject) for entry in reversed(log)]
    imported = (await directory.keys("default"))[0]
    assert shown[2:] == [
        ("alice", "organisation.create", "organisation Labs"),
        ("alice", "team.create", "team Labs/vision"),
        ("bob", "limits.change", "team Labs/vision"),
        ("bob", "limits.change", "team Labs/vision"),
        ("alice", "key.create", f"key {key.public_id}"),
        ("carol", "key.rotate", f"key {key.public_id}"),
        ("carol", "key.create", f"key {new.public_id}"),
        ("carol", "key.revoke", f"key {new.public_id}"),
        ("pixtral up", "key.import", f"key {imported.public_id}"),
    ]
    details = {entry.id: entry.detail for entry in log}
    limits = [details[entry.id] for entry in reversed(log) if entry.action == "limits.change"]
    host = "https://hooks.example.com"
    assert limits[0] == {"budget_nano_usd": [None, 7], "alert_url": [None, host]}
    assert limits[1] == {"alert_url": [host, host]}
    assert all(entry.at_us == watch() for entry in log)

    everything = json.dumps([dict(entry.detail) for entry in log]) + repr(log)
    for secret in (key.secret, new.secret, BOOTSTRAP, "the-canary-path"):
        assert secret[-20:] not in everything


async def test_lists_and_representations_show_no_secret(directory):
    key = await directory.create_key("default", "a", limits=Limits(alert_url=HOOK), actor="me")
    shown = repr([key, await directory.keys(), await directory.principal(key.secret)])
    assert key.secret not in shown
    assert "canary-path" not in shown
    assert (await directory.keys())[0].limits.shown()["alert_url"] == "https://hooks.example.com"


async def test_the_store_keeps_no_secret(directory, database):
    made = await directory.create_key("default", "a", actor="me")
    async with database.read() as connection:
        row = (await connection.execute(select(keys))).mappings().one()
    assert made.secret[-20:] not in repr(dict(row))
    assert len(row["digest"]) == 32
    assert row["digest"] != hashlib.sha256(made.secret.encode()).digest()  # peppered
