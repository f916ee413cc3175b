"""Who has to prove who they are: each rule on a plan that breaks it, and on it mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.terraform.fragments import change, rules

_OPEN = {"redis without login"}
_ELASTICACHE = {"at_rest_encryption_enabled": "true", "transit_encryption_enabled": True}


@pytest.mark.parametrize(
    ("kind", "path", "good", "bad"),
    [
        ("google_memorystore_instance", "authorization_mode", "TOKEN_AUTH", None),
        ("google_memorystore_instance", "authorization_mode", "TOKEN_AUTH", "AUTH_DISABLED"),
        ("google_redis_instance", "auth_enabled", True, None),
    ],
)
def test_googles_redis_asks_for_a_password(kind: str, path: str, good: Any, bad: Any):
    encrypted = {"transit_encryption_mode": "SERVER_AUTHENTICATION"}

    assert not rules(change(kind, encrypted | {path: good})) & _OPEN
    assert rules(change(kind, encrypted | {path: bad})) >= _OPEN


def test_awss_redis_has_users_or_a_token():
    group = "aws_elasticache_replication_group"
    later = change(group, _ELASTICACHE)
    later["change"]["after_unknown"] = {"user_group_ids": [True]}

    assert rules(change(group, _ELASTICACHE)) == _OPEN
    assert rules(change(group, _ELASTICACHE | {"user_group_ids": ["ours"]})) == set()
    assert rules(later) == set()


@pytest.mark.parametrize(
    ("mode", "power", "clean"),
    [
        ("no-password-required", "off ~* -@all", True),
        ("no-password-required", "on ~* +@all", False),
        ("password", "on ~* +@all", True),
    ],
)
def test_awss_redis_users_have_a_password_or_no_power(mode: str, power: str, clean: bool):
    values = {"authentication_mode": [{"type": mode}], "access_string": power}

    assert rules(change("aws_elasticache_user", values)) == (set() if clean else _OPEN)


def redis_template(database: dict[str, str], cluster: dict[str, str]) -> Any:
    kind = "Microsoft.Cache/redisEnterprise"
    content = {
        "resources": [
            {"type": kind, "properties": cluster},
            {"type": f"{kind}/databases", "properties": database},
        ]
    }
    values = {"template_content": json.dumps(content)}
    return change("azurerm_resource_group_template_deployment", values)


def test_azures_redis_in_a_template_is_looked_at_as_if_it_were_a_resource():
    database = {"accessKeysAuthentication": "Enabled", "clientProtocol": "Encrypted"}
    cluster = {"publicNetworkAccess": "Disabled"}

    assert rules(redis_template(database, cluster)) == set()
    assert rules(redis_template({**database, "accessKeysAuthentication": "Disabled"}, cluster)) == (
        _OPEN
    )
    assert rules(redis_template({**database, "clientProtocol": "Plaintext"}, cluster)) == {
        "unencrypted"
    }
    assert rules(redis_template(database, {})) == {"public address"}


@pytest.mark.parametrize("kind", ["aws_launch_template", "aws_instance"])
def test_metadata_is_given_for_a_token_and_to_no_pod(kind: str):
    def machine(tokens: str | None, hops: int | None) -> set[str]:
        options = {"http_tokens": tokens, "http_put_response_hop_limit": hops}
        return rules(change(kind, {"metadata_options": [options]}))

    assert machine("required", 1) == set()
    for tokens, hops in (("optional", 1), (None, 1), ("required", 2), ("required", None)):
        assert machine(tokens, hops) == {"instance metadata"}
    assert rules(change(kind, {})) == {"instance metadata"}


def test_node_groups_have_a_launch_template():
    without = change("aws_eks_node_group", {"launch_template": []})
    later = change("aws_eks_node_group", {})
    later["change"]["after_unknown"] = {"launch_template": [{"id": True}]}

    assert "instance metadata" in rules(without)
    assert "instance metadata" not in rules(later)


CLUSTERS: list[tuple[str, dict[str, Any]]] = [
    ("google_container_cluster", {"datapath_provider": "ADVANCED_DATAPATH"}),
    ("google_container_cluster", {"network_policy": [{"enabled": True}]}),
    ("azurerm_kubernetes_cluster", {"network_profile": [{"network_policy": "cilium"}]}),
]


@pytest.mark.parametrize(("kind", "good"), CLUSTERS)
def test_network_policies_are_enforced(kind: str, good: dict[str, Any]):
    assert "network policies not enforced" not in rules(change(kind, good))
    assert "network policies not enforced" in rules(change(kind, {}))


def test_on_aws_an_addon_enforces_them():
    cluster = change("aws_eks_cluster", {})

    def addon(name: str, settings: str | None) -> Any:
        values = {"addon_name": name, "configuration_values": settings}
        return change("aws_eks_addon", values)

    on = json.dumps({"enableNetworkPolicy": "true"})
    assert "network policies not enforced" not in rules(cluster, addon("vpc-cni", on))
    for other in (addon("coredns", on), addon("vpc-cni", None), addon("vpc-cni", "{}")):
        assert "network policies not enforced" in rules(cluster, other)


def test_a_frontend_has_no_public_address_whoever_made_it():
    def gateway(kind: str, address: Any, unknown: bool = False) -> set[str]:
        frontend = {"name": "x", "public_ip_address_id": address}
        resource = change(kind, {"frontend_ip_configuration": [frontend]})
        if unknown:
            later = {"frontend_ip_configuration": [{"public_ip_address_id": True}]}
            resource["change"]["after_unknown"] = later
        return rules(resource)

    for kind in ("azurerm_application_gateway", "azurerm_lb"):
        assert gateway(kind, None) == set()
        assert gateway(kind, "/subscriptions/…/publicIPAddresses/ours") == {"public address"}
        assert gateway(kind, None, unknown=True) == {"public address"}
