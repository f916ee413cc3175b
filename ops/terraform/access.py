"""Policies: who has to prove who they are, and what pods can reach beside what they are for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ops.terraform.arm import redis_databases
from ops.terraform.plan import Plan, Resource
from ops.terraform.violation import Violation

# type, path, the value with which it asks.
_ASKS: tuple[tuple[str, str, Any], ...] = (
    ("azurerm_redis_cache", "redis_configuration.authentication_enabled", True),
    ("google_memorystore_instance", "authorization_mode", "TOKEN_AUTH"),
    ("google_redis_instance", "auth_enabled", True),
    ("google_redis_cluster", "authorization_mode", "AUTH_MODE_IAM_AUTH"),
)
# A user who is off, or may do nothing.
_POWERLESS = "off"


def redis_login(plan: Plan) -> Iterator[Violation]:
    """Redis asks for a password: whoever can write there runs code in the cluster."""
    rule = "redis without login"
    for kind, path, wanted in _ASKS:
        for resource in plan.of(kind):
            if resource.get(path) != wanted:
                told = f"{path} is {resource.get(path)}, not {wanted}"
                yield Violation.of(resource, rule, told)
    for group in plan.of("aws_elasticache_replication_group"):
        if not (_said(group, "user_group_ids") or _said(group, "auth_token_wo_version")):
            yield Violation.of(group, rule, "has neither users nor an auth token")
    for user in plan.of("aws_elasticache_user"):
        open_to_all = user.get("no_password_required") or (
            user.get("authentication_mode.type") == "no-password-required"
        )
        if open_to_all and str(user.get("access_string")).split()[:1] != [_POWERLESS]:
            yield Violation.of(user, rule, "is on and needs no password")
    for deployment, database in redis_databases(plan):
        if database.get("accessKeysAuthentication") != "Enabled":
            yield Violation.of(deployment, rule, "accessKeysAuthentication is not Enabled")


def instance_metadata(plan: Plan) -> Iterator[Violation]:
    """AWS's nodes give their credentials for a token only, and to no pod: IMDSv2, one hop."""
    rule = "instance metadata"
    for machine in plan.of("aws_launch_template", "aws_instance"):
        if machine.get("metadata_options.http_tokens") != "required":
            yield Violation.of(machine, rule, "IMDSv2 is not required (http_tokens)")
        if machine.get("metadata_options.http_put_response_hop_limit") != 1:
            yield Violation.of(machine, rule, "hop limit is not 1: pods reach the node's identity")
    for pool in plan.of("aws_eks_node_group"):
        if not _said(pool, "launch_template"):
            yield Violation.of(pool, rule, "has no launch template, and so no IMDSv2 of its own")


def network_policies(plan: Plan) -> Iterator[Violation]:
    """What enforces network policies is on: without it they are accepted and mean nothing."""
    rule = "network policies not enforced"
    for cluster in plan.of("google_container_cluster"):
        dataplane = cluster.get("datapath_provider") == "ADVANCED_DATAPATH"
        if not (dataplane or cluster.get("network_policy.enabled") is True):
            yield Violation.of(cluster, rule, "neither Dataplane V2 nor network_policy is on")
    for cluster in plan.of("azurerm_kubernetes_cluster"):
        if cluster.get("network_profile.network_policy") not in {"azure", "calico", "cilium"}:
            yield Violation.of(cluster, rule, "network_profile.network_policy is not said")
    enforcing = [addon for addon in plan.of("aws_eks_addon") if _enforces(addon)]
    for cluster in plan.of("aws_eks_cluster"):
        if not enforcing:
            yield Violation.of(cluster, rule, "no vpc-cni add-on has enableNetworkPolicy")


def _enforces(addon: Resource) -> bool:
    settings = (addon.get("configuration_values") or "").replace(" ", "")
    on = '"enableNetworkPolicy":"true"' in settings or '"enableNetworkPolicy":true' in settings
    return addon.get("addon_name") == "vpc-cni" and on


def _said(resource: Resource, path: str) -> bool:
    """Whether there is a value, now or when the cloud has decided it."""
    return bool(resource.get(path)) or bool(resource.unsettled(path))
