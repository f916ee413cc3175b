"""Secrets, deletion, encryption and buckets: each rule broken, and mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.terraform.fragments import change, rules

_ENCRYPTED = {"transit_encryption_mode": "SERVER_AUTHENTICATION"}
_TOKENS = {"metadata_options": [{"http_tokens": "required", "http_put_response_hop_limit": 1}]}


def test_outputs_hold_no_secrets():
    for after in ({"database": {"password": "x"}}, {"redis": [{"auth_string": "x"}]}):
        outputs = {"told": {"after": after, "after_sensitive": False}}
        assert rules(outputs=outputs) == {"secret in the open"}
    hidden = {"told": {"after": "x", "after_sensitive": True}}
    assert rules(outputs=hidden) == {"secret in the open"}
    harmless = {"told": {"after": {"user": "x", "secret_name": "y"}, "after_sensitive": False}}
    assert rules(outputs=harmless) == set()


def test_attributes_hold_no_secrets():
    marked = {"contents": True}
    assert rules(change("any_thing", {"password": "x"})) == {"secret in the open"}
    assert rules(change("any_thing", {"contents": "x"}, sensitive=marked)) == {"secret in the open"}
    assert rules(change("any_thing", {"password": None, "password_wo": None})) == set()
    assert rules(change("kubernetes_secret_v1", {"data": {"a": "b"}})) == {"secret in the open"}
    assert rules(change("kubernetes_secret_v1", {"data_wo_revision": 1})) == set()


@pytest.mark.parametrize("environment", ["prod", "dev"])
def test_production_is_protected_against_deletion(environment: str):
    marked = {"labels": {"environment": environment}}
    expected = {"no deletion protection"} if environment == "prod" else set()
    asking = {"authorization_mode": "TOKEN_AUTH", **_ENCRYPTED}
    values = marked | asking | {"deletion_protection_enabled": False}
    kept = values | {"deletion_protection_enabled": True}

    assert rules(change("google_memorystore_instance", values)) == expected
    assert rules(change("google_memorystore_instance", kept)) == set()


def test_azure_protects_by_a_lock():
    server = change(
        "azurerm_postgresql_flexible_server",
        {"tags": {"environment": "prod"}, "public_network_access_enabled": False},
    )
    lock = change("azurerm_management_lock", {"lock_level": "CanNotDelete"})
    named = {"azurerm_management_lock.this": "azurerm_postgresql_flexible_server.this"}

    assert rules(server) == {"no deletion protection"}
    assert rules(server, lock, references=named) == set()


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("aws_ebs_volume", {"encrypted": True}, {"encrypted": None}),
        (
            "aws_launch_template",
            {"block_device_mappings": [{"ebs": [{"encrypted": "true"}]}], **_TOKENS},
            {"block_device_mappings": [{"ebs": [{"encrypted": None}]}], **_TOKENS},
        ),
        (
            "aws_db_parameter_group",
            {"parameter": [{"name": "rds.force_ssl", "value": "1"}]},
            {"parameter": []},
        ),
        (
            "google_memorystore_instance",
            {"authorization_mode": "TOKEN_AUTH", **_ENCRYPTED},
            {"authorization_mode": "TOKEN_AUTH", "transit_encryption_mode": "DISABLED"},
        ),
        (
            "azurerm_postgresql_flexible_server_configuration",
            {"name": "require_secure_transport", "value": "ON"},
            {"name": "require_secure_transport", "value": "OFF"},
        ),
    ],
)
def test_nothing_is_in_the_clear(kind: str, good: Any, bad: Any):
    assert rules(change(kind, good)) == set()
    assert rules(change(kind, bad)) == {"unencrypted"}


def test_googles_bucket_is_private():
    good = {
        "public_access_prevention": "enforced",
        "uniform_bucket_level_access": True,
        "versioning": [{"enabled": True}],
    }
    assert rules(change("google_storage_bucket", good)) == set()
    for setting in good:
        assert rules(change("google_storage_bucket", good | {setting: None})) == {"public bucket"}
    everybody = change("google_storage_bucket_iam_member", {"member": "allUsers"})
    assert rules(everybody) == {"public bucket"}


def test_awss_bucket_is_private():
    kinds = ("public_access_block", "versioning", "server_side_encryption_configuration")
    around = [f"aws_s3_bucket_{kind}" for kind in kinds]
    blocked = dict.fromkeys(
        (
            "block_public_acls",
            "block_public_policy",
            "ignore_public_acls",
            "restrict_public_buckets",
        ),
        True,
    )
    values = {around[0]: blocked}
    changes = [change(kind, values.get(kind, {})) for kind in around]
    named = {f"{kind}.this": "aws_s3_bucket.this" for kind in around}
    bucket = change("aws_s3_bucket", {})

    assert rules(bucket, *changes, references=named) == set()
    assert rules(bucket) == {"public bucket", "unencrypted"}
    half = change(around[0], blocked | {"block_public_policy": False})
    assert rules(bucket, half, *changes[1:], references=named) == {"public bucket"}


@pytest.mark.parametrize(
    ("statement", "clean"),
    [
        ({"Effect": "Allow", "Principal": "*"}, False),
        ({"Effect": "Allow", "Principal": {"AWS": "*"}}, False),
        ({"Effect": "Deny", "Principal": "*"}, True),
        ({"Effect": "Allow", "Principal": "*", "Condition": {"Bool": {}}}, True),
    ],
)
def test_bucket_policies(statement: Any, clean: bool):
    text = json.dumps({"Statement": [statement]})
    expected = set() if clean else {"public bucket"}
    assert rules(change("aws_s3_bucket_policy", {"policy": text})) == expected


def test_azures_container_is_private():
    assert rules(change("azurerm_storage_container", {"container_access_type": "private"})) == set()
    assert rules(change("azurerm_storage_container", {"container_access_type": "blob"})) == {
        "public bucket"
    }
