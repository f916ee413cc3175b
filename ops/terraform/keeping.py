"""Policies: what is kept is kept safely: against deletion, in the clear, or by strangers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ops.terraform.arm import redis_databases
from ops.terraform.plan import Plan, blocks, leaves
from ops.terraform.violation import Violation

_PRODUCTION = {"prod", "production"}
_LABELS = ("labels", "resource_labels", "user_labels", "tags")

# type, path, the value that protects it.
_PROTECTED: tuple[tuple[str, str, Any], ...] = (
    ("aws_db_instance", "deletion_protection", True),
    ("aws_db_instance", "skip_final_snapshot", False),
    ("aws_eks_cluster", "deletion_protection", True),
    ("aws_s3_bucket", "force_destroy", False),
    ("google_container_cluster", "deletion_protection", True),
    ("google_memorystore_instance", "deletion_protection_enabled", True),
    ("google_sql_database_instance", "deletion_protection", True),
    ("google_sql_database_instance", "settings.deletion_protection_enabled", True),
    ("google_storage_bucket", "force_destroy", False),
)
# Azure protects by a lock beside the thing.
_LOCKED = (
    "azurerm_kubernetes_cluster",
    "azurerm_postgresql_flexible_server",
    "azurerm_storage_account",
)

_ENCRYPTED: tuple[tuple[str, str, Any], ...] = (
    ("aws_db_instance", "storage_encrypted", True),
    ("aws_ebs_volume", "encrypted", True),
    ("aws_elasticache_replication_group", "at_rest_encryption_enabled", "true"),
    ("aws_elasticache_replication_group", "transit_encryption_enabled", True),
    ("azurerm_kubernetes_cluster", "default_node_pool.host_encryption_enabled", True),
    ("azurerm_kubernetes_cluster_node_pool", "host_encryption_enabled", True),
    ("azurerm_managed_redis", "default_database.client_protocol", "Encrypted"),
    ("azurerm_storage_account", "https_traffic_only_enabled", True),
    ("azurerm_storage_account", "min_tls_version", "TLS1_2"),
    ("google_memorystore_instance", "transit_encryption_mode", "SERVER_AUTHENTICATION"),
    ("google_redis_instance", "transit_encryption_mode", "SERVER_AUTHENTICATION"),
    ("google_sql_database_instance", "settings.ip_configuration.ssl_mode", "ENCRYPTED_ONLY"),
)
_PRIVATE_BUCKETS: tuple[tuple[str, str, Any], ...] = (
    ("azurerm_storage_account", "allow_nested_items_to_be_public", False),
    ("azurerm_storage_account", "blob_properties.versioning_enabled", True),
    ("azurerm_storage_account", "shared_access_key_enabled", False),
    ("azurerm_storage_container", "container_access_type", "private"),
    ("google_storage_bucket", "public_access_prevention", "enforced"),
    ("google_storage_bucket", "uniform_bucket_level_access", True),
    ("google_storage_bucket", "versioning.enabled", True),
)
_BLOCKED = (
    "block_public_acls",
    "block_public_policy",
    "ignore_public_acls",
    "restrict_public_buckets",
)
_EVERYBODY = {"allUsers", "allAuthenticatedUsers"}


def is_production(plan: Plan) -> bool:
    """Whether the plan's own labels call it production."""
    labels = (resource.get(name) for resource in plan.resources for name in _LABELS)
    return any(
        isinstance(each, Mapping) and each.get("environment") in _PRODUCTION for each in labels
    )


def deletion_protection(plan: Plan) -> Iterator[Violation]:
    """In production the cluster, the ledger and the weights refuse to be deleted."""
    if not is_production(plan):
        return
    yield from _wanted(plan, _PROTECTED, "no deletion protection")
    for resource in plan.of(*_LOCKED):
        if not any(user.type == "azurerm_management_lock" for user in plan.users(resource)):
            yield Violation.of(resource, "no deletion protection", "has no management lock")


def encryption(plan: Plan) -> Iterator[Violation]:
    """Disks, databases and buckets are encrypted, and so is the way to them."""
    rule = "unencrypted"
    yield from _wanted(plan, _ENCRYPTED, rule)
    for deployment, database in redis_databases(plan):
        if database.get("clientProtocol") != "Encrypted":
            yield Violation.of(deployment, rule, "clientProtocol is not Encrypted")
    for template in plan.of("aws_launch_template"):
        for device in blocks(template.get("block_device_mappings")):
            if any(disk.get("encrypted") != "true" for disk in blocks(device.get("ebs"))):
                yield Violation.of(
                    template, rule, f"leaves {device.get('device_name')} in the clear"
                )
    for bucket in plan.of("aws_s3_bucket"):
        kind = "aws_s3_bucket_server_side_encryption_configuration"
        if not any(user.type == kind for user in plan.users(bucket)):
            yield Violation.of(bucket, rule, "has no server side encryption")
    for parameters in plan.of("aws_db_parameter_group"):
        said = {each.get("name"): each.get("value") for each in blocks(parameters.get("parameter"))}
        if said.get("rds.force_ssl") != "1":
            yield Violation.of(parameters, rule, "rds.force_ssl is not 1")
    for setting in plan.of("azurerm_postgresql_flexible_server_configuration"):
        if setting.get("name") == "require_secure_transport" and setting.get("value") != "ON":
            yield Violation.of(setting, rule, "require_secure_transport is not ON")


def public_buckets(plan: Plan) -> Iterator[Violation]:
    """No bucket can be read by strangers, and what is overwritten can be had back."""
    rule = "public bucket"
    yield from _wanted(plan, _PRIVATE_BUCKETS, rule)
    for resource in plan.resources:
        if resource.type.startswith("google_") and "_iam_" in resource.type:
            given = [resource.get("member"), *(resource.get("members") or ())]
            for member in _EVERYBODY.intersection(each for each in given if each):
                yield Violation.of(resource, rule, f"is given to {member}")
    for bucket in plan.of("aws_s3_bucket"):
        users = {user.type for user in plan.users(bucket)}
        for kind in ("aws_s3_bucket_public_access_block", "aws_s3_bucket_versioning"):
            if kind not in users:
                yield Violation.of(bucket, rule, f"has no {kind}")
    for block in plan.of("aws_s3_bucket_public_access_block"):
        for switch in _BLOCKED:
            if block.get(switch) is not True:
                yield Violation.of(block, rule, f"{switch} is not on")
    for policy in plan.of("aws_s3_bucket_policy"):
        if _lets_everybody(policy.get("policy")):
            yield Violation.of(policy, rule, "allows everybody")


def _wanted(plan: Plan, table: tuple[tuple[str, str, Any], ...], rule: str) -> Iterator[Violation]:
    for kind, path, wanted in table:
        for resource in plan.of(kind):
            if resource.get(path) != wanted:
                told = f"{path} is {resource.get(path)}, not {wanted}"
                yield Violation.of(resource, rule, told)


def _lets_everybody(policy: str | None) -> bool:
    """Whether an AWS policy (None: known after the apply) allows anybody without a condition."""
    if not policy:
        return False
    statements = json.loads(policy).get("Statement", [])
    return any(
        each.get("Effect") == "Allow"
        and not each.get("Condition")
        and "*" in [value for _, value in leaves(each.get("Principal"))]
        for each in (statements if isinstance(statements, list) else [statements])
    )
