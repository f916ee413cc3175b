"""What providers write into the state by themselves: known, and worth nothing."""

from __future__ import annotations

from typing import Any

import pytest

from ops.terraform import schemas
from ops.terraform.secrets import READ_BACK, read_back_by
from tests.terraform.fragments import change, rules

_RULE = "secret read into the state"
# Looks like a secret and is the name of one: what it holds is in Secrets Manager.
_REFERENCES = {("aws_db_instance", "master_user_secret")}


def test_every_secret_that_a_type_in_use_brings_is_accounted_for():
    found = {
        (name, path)
        for known in schemas.providers().values()
        for types in (known.resources, known.data)
        for name, block in types.items()
        for path in read_back_by(block)
    }
    accounted = {(name, path) for name, (paths, _, _) in READ_BACK.items() for path in paths}

    assert found
    assert found - accounted == _REFERENCES


@pytest.mark.parametrize("kind", [name for name, (_, path, _) in READ_BACK.items() if not path])
def test_some_types_cannot_be_used_without_one(kind: str):
    assert _RULE in rules(change(kind, {}))


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (
            "azurerm_kubernetes_cluster",
            {"local_account_disabled": True},
            {"local_account_disabled": None},
        ),
        (
            "azurerm_storage_account",
            {"shared_access_key_enabled": False},
            {"shared_access_key_enabled": True},
        ),
        (
            "azurerm_managed_redis",
            {"default_database": [{"access_keys_authentication_enabled": False}]},
            {"default_database": [{"access_keys_authentication_enabled": True}]},
        ),
        (
            "google_container_cluster",
            {"master_auth": [{"client_certificate_config": [{"issue_client_certificate": False}]}]},
            {"master_auth": []},
        ),
    ],
)
def test_others_only_while_it_is_worth_nothing(kind: str, good: Any, bad: Any):
    assert _RULE not in rules(change(kind, good))
    assert _RULE in rules(change(kind, bad))


def test_a_template_lists_no_keys():
    def template(text: str) -> set[str]:
        values = {"template_content": text}
        return rules(change("azurerm_resource_group_template_deployment", values))

    assert template('{"outputs": {"host": "[reference(x).hostName]"}}') == set()
    assert template('{"outputs": {"key": "[listKeys(x, y).primaryKey]"}}') == {_RULE}
