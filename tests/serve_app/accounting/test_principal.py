from dataclasses import replace

import pytest

from serve_app.accounting.hold import Payer
from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import MANAGES, PERMISSIONS, Endpoint, Permission, Role
from serve_app.errors import Forbidden

TEAM, OTHER_TEAM = 11, 12


def principal(role: Role, **fields: object) -> Principal:
    base = Principal(Payer(13, TEAM, 10), "abc", "ci", "vision", "Labs", role)
    return replace(base, **fields)  # type: ignore[arg-type]  # whatever the case names


def may(role: Role) -> set[Permission]:
    allowed = set()
    for permission in Permission:
        try:
            principal(role).check(permission)
            allowed.add(permission)
        except Forbidden:
            pass
    return allowed


def test_the_table_of_roles():
    call, own, team = Permission.CALL, Permission.OWN_USAGE, Permission.TEAM_USAGE
    assert may(Role.ADMIN) == set(Permission)
    assert may(Role.LEAD) == {call, own, team, Permission.TEAM_KEYS}
    assert may(Role.MEMBER) == {call, own}
    assert may(Role.FINANCE) == {own, team, Permission.ALL_USAGE}
    assert set(PERMISSIONS) == set(MANAGES) == set(Role)


def test_finance_calls_no_model_and_changes_nothing():
    for permission in (Permission.CALL, Permission.TEAM_KEYS, Permission.ADMINISTER):
        with pytest.raises(Forbidden, match="finance"):
            principal(Role.FINANCE).check(permission)


@pytest.mark.parametrize(
    ("role", "team", "of", "allowed"),
    [
        (Role.ADMIN, OTHER_TEAM, Role.ADMIN, True),
        (Role.LEAD, TEAM, Role.MEMBER, True),
        (Role.LEAD, TEAM, Role.LEAD, True),
        (Role.LEAD, OTHER_TEAM, Role.MEMBER, False),
        # Rotating an admin's key would show a lead an admin's secret.
        (Role.LEAD, TEAM, Role.ADMIN, False),
        (Role.LEAD, TEAM, Role.FINANCE, False),
        (Role.MEMBER, TEAM, Role.MEMBER, False),
        (Role.FINANCE, TEAM, Role.MEMBER, False),
    ],
)
def test_who_manages_whose_keys(role, team, of, allowed):
    if allowed:
        principal(role).check_manages(team, of)
    else:
        with pytest.raises(Forbidden):
            principal(role).check_manages(team, of)


def test_a_key_without_a_scope_is_for_everything():
    free = principal(Role.MEMBER)
    free.check_model("anything")
    for endpoint in Endpoint:
        free.check_endpoint(endpoint)


def test_a_scope_leaves_out_what_it_does_not_name():
    scoped = principal(Role.MEMBER, models=("a", "b"), endpoints=("chat",))
    scoped.check_model("b")
    scoped.check_endpoint(Endpoint.CHAT)
    with pytest.raises(Forbidden) as caught:
        scoped.check_model("c")
    assert caught.value.param == "model"
    with pytest.raises(Forbidden, match="chat only"):
        scoped.check_endpoint(Endpoint.USAGE)


def test_a_key_is_valid_until_its_instant():
    assert principal(Role.MEMBER).is_valid(10**18)
    assert principal(Role.MEMBER, expires_us=5).is_valid(4)
    assert not principal(Role.MEMBER, expires_us=5).is_valid(5)


@pytest.mark.parametrize(
    ("models", "endpoints", "allowed"),
    [
        (["small"], ["chat"], True),
        (["small", "large"], ["chat"], True),
        (["huge"], ["chat"], False),
        (["small", "huge"], ["chat"], False),
        ([], ["chat"], False),
        (["small"], [], False),
        (["small"], ["chat", "usage"], False),
    ],
)
def test_a_key_hands_out_no_more_than_it_may_do_itself(models, endpoints, allowed):
    scoped = principal(Role.LEAD, models=("small", "large"), endpoints=("chat",))
    unscoped = principal(Role.LEAD)
    unscoped.check_grants(models, endpoints)
    if allowed:
        scoped.check_grants(models, endpoints)
    else:
        with pytest.raises(Forbidden, match="hands out no more"):
            scoped.check_grants(models, endpoints)
