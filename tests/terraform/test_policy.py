"""Each rule on the smallest plan that breaks it, and on the same plan mended."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from ops.terraform import policy
from ops.terraform.ceiling import ceiling
from ops.terraform.plan import Plan


def change(kind: str, values: dict[str, Any], *, sensitive: Any = None, name: str = "this") -> Any:
    """One resource as `terraform show -json` tells of it."""
    return {
        "address": f"module.cluster.{kind}.{name}",
        "module_address": "module.cluster",
        "mode": "managed",
        "type": kind,
        "name": name,
        "change": {
            "actions": ["create"],
            "after": values,
            "after_unknown": {},
            "after_sensitive": sensitive,
        },
    }


def plan(*changes: Any, outputs: Any = None, references: Any = None) -> dict[str, Any]:
    """``references``: user block -> the block it names."""
    configured = [
        {"address": user, "expressions": {"id": {"references": [f"{used}.id", used]}}}
        for user, used in (references or {}).items()
    ]
    module = {"module": {"resources": configured}}
    return {
        "resource_changes": list(changes),
        "output_changes": outputs or {},
        "configuration": {"root_module": {"module_calls": {"cluster": module}}},
    }


def rules(*changes: Any, **more: Any) -> set[str]:
    return {each.rule for each in policy.violations(plan(*changes, **more))}


def firewall(sources: list[str] | None, ports: list[str], **more: Any) -> Any:
    allow = [{"protocol": "tcp", "ports": ports}]
    values = {"direction": "INGRESS", "source_ranges": sources, "allow": allow, **more}
    return change("google_compute_firewall", values)


def inbound(source: str, ports: str) -> Any:
    rule = {
        "direction": "Inbound",
        "access": "Allow",
        "source_address_prefix": source,
        "destination_port_range": ports,
    }
    return change("azurerm_network_security_group", {"security_rule": [rule]})


def admitted(source: str, low: int, high: int) -> Any:
    values = {"cidr_ipv4": source, "from_port": low, "to_port": high, "ip_protocol": "tcp"}
    return change("aws_vpc_security_group_ingress_rule", values)


@pytest.mark.parametrize("source", ["0.0.0.0/0", "128.0.0.0/1", "::/0", "8.0.0.0/8"])
def test_the_internet_is_let_in_nowhere(source: str):
    assert rules(firewall([source], ["443"])) == {"public ingress"}
    assert rules(admitted(source, 443, 443)) == {"public ingress"}
    assert rules(inbound(source, "443")) == {"public ingress"}


@pytest.mark.parametrize("source", ["10.0.0.0/8", "100.64.0.0/10", "35.191.0.0/16", "fd00::/8"])
def test_private_ranges_and_health_checks_are(source: str):
    assert rules(firewall([source], ["443"])) == set()
    assert rules(admitted(source, 443, 443)) == set()
    assert rules(inbound(source, "443")) == set()


@pytest.mark.parametrize("source", ["*", "Internet", "Any"])
def test_azures_words_for_the_internet(source: str):
    assert rules(inbound(source, "443")) == {"public ingress"}


def test_service_tags_are_not_the_internet():
    assert rules(inbound("AzureLoadBalancer", "443")) == set()


def test_a_google_rule_without_a_source_is_open():
    assert rules(firewall(None, ["443"])) == {"public ingress"}
    assert rules(firewall(None, ["443"], source_tags=["ours"])) == set()


def test_what_refuses_is_no_opening():
    values = {"direction": "INGRESS", "source_ranges": ["0.0.0.0/0"], "deny": [{"protocol": "all"}]}
    assert rules(change("google_compute_firewall", values)) == set()


def test_inline_rules_of_security_groups_count():
    ingress = [{"cidr_blocks": ["0.0.0.0/0"], "from_port": 443, "to_port": 443, "protocol": "tcp"}]
    assert rules(change("aws_security_group", {"ingress": ingress})) == {"public ingress"}


def test_the_dashboards_port_is_opened_to_nobody():
    for opening in (
        firewall(["10.0.0.0/8"], ["8265"]),
        firewall(["10.0.0.0/8"], ["8000-9000"]),
        admitted("10.0.0.0/8", 8265, 8265),
        inbound("10.0.0.0/8", "8000-9000"),
    ):
        assert rules(opening) == {"dashboard reachable"}


def test_neighbouring_ports_are():
    assert rules(firewall(["10.0.0.0/8"], ["8000", "8266-9000"])) == set()


def kubernetes_service(kind: str, port: int, **annotations: str) -> Any:
    values = {
        "metadata": [{"annotations": annotations}],
        "spec": [{"type": kind, "port": [{"port": port}]}],
    }
    return change("kubernetes_service_v1", values)


def test_a_load_balancer_says_that_it_is_internal():
    inside = {"networking.gke.io/load-balancer-type": "Internal"}

    assert rules(kubernetes_service("LoadBalancer", 443)) == {"load balancer not internal"}
    assert rules(kubernetes_service("LoadBalancer", 443, **inside)) == set()
    assert rules(kubernetes_service("LoadBalancer", 8265, **inside)) == {"dashboard reachable"}
    assert rules(kubernetes_service("ClusterIP", 8265)) == set()


def rendered(*documents: Any) -> Any:
    """A release whose chart carries rendered manifests in its values."""
    return change("helm_release", {"values": [json.dumps({"manifests": documents})]})


def test_rendered_manifests_are_read_as_well():
    outward = {"kind": "Service", "spec": {"type": "LoadBalancer", "ports": [{"port": 443}]}}
    dashboard = {"kind": "Service", "spec": {"type": "NodePort", "ports": [{"port": 8265}]}}
    inward = {"kind": "Service", "spec": {"type": "ClusterIP", "ports": [{"port": 8265}]}}

    assert rules(rendered(outward)) == {"load balancer not internal"}
    assert rules(rendered(dashboard)) == {"dashboard reachable"}
    assert rules(rendered(inward)) == set()


def test_rendered_ingresses_stay_inside():
    def ingress(port: int, **annotations: str) -> Any:
        backend = {"service": {"name": "x", "port": {"number": port}}}
        return rendered(
            {
                "kind": "Ingress",
                "metadata": {"annotations": annotations},
                "spec": {
                    "ingressClassName": "alb",
                    "rules": [{"http": {"paths": [{"path": "/", "backend": backend}]}}],
                },
            }
        )

    internal = {"alb.ingress.kubernetes.io/scheme": "internal"}
    assert rules(ingress(8000)) == {"load balancer not internal"}
    assert rules(ingress(8000, **internal)) == set()
    assert rules(ingress(8265, **internal)) == {"dashboard reachable"}


@pytest.mark.parametrize(
    ("name", "annotations", "clean"),
    [
        ("gce-internal", {}, True),
        ("gce", {}, False),
        ("alb", {"alb.ingress.kubernetes.io/scheme": "internal"}, True),
        ("alb", {"alb.ingress.kubernetes.io/scheme": "internet-facing"}, False),
        ("azure-application-gateway", {"appgw.ingress.kubernetes.io/use-private-ip": "true"}, True),
        ("azure-application-gateway", {}, False),
    ],
)
def test_the_ingress_that_the_workload_is_told_of(name: str, annotations: Any, clean: bool):
    platform = {"after": {"ingress": {"class": name, "annotations": annotations}}}
    expected = set() if clean else {"load balancer not internal"}
    assert rules(outputs={"platform": platform}) == expected


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("google_compute_address", {"address_type": "INTERNAL"}, {"address_type": None}),
        ("aws_lb", {"internal": True}, {"internal": None}),
        ("aws_subnet", {"map_public_ip_on_launch": False}, {"map_public_ip_on_launch": True}),
        (
            "azurerm_managed_redis",
            {
                "public_network_access": "Disabled",
                "default_database": [{"client_protocol": "Encrypted"}],
            },
            {"public_network_access": None, "default_database": [{"client_protocol": "Encrypted"}]},
        ),
    ],
)
def test_public_addresses(kind: str, good: Any, bad: Any):
    assert rules(change(kind, good)) == set()
    assert rules(change(kind, bad)) == {"public address"}


@pytest.mark.parametrize(
    ("address", "way_out", "way_in"),
    [
        ("aws_eip", "aws_nat_gateway", "aws_instance"),
        (
            "azurerm_public_ip",
            "azurerm_nat_gateway_public_ip_association",
            "azurerm_application_gateway",
        ),
    ],
)
def test_only_nat_has_a_public_address(address: str, way_out: str, way_in: str):
    given = change(address, {})

    assert rules(given) == {"public address"}
    for user, expected in ((way_out, set()), (way_in, {"public address"})):
        named = {f"{user}.this": f"{address}.this"}
        assert rules(given, change(user, {}), references=named) == expected


CLUSTERS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "google_container_cluster",
        {
            "private_cluster_config": [
                {"enable_private_nodes": True, "enable_private_endpoint": True}
            ]
        },
        {"private_cluster_config": [{"enable_private_nodes": True}]},
    ),
    (
        "aws_eks_cluster",
        {"vpc_config": [{"endpoint_private_access": True, "endpoint_public_access": False}]},
        {"vpc_config": [{"endpoint_private_access": True, "endpoint_public_access": None}]},
    ),
    (
        "azurerm_kubernetes_cluster",
        {"private_cluster_enabled": True, "private_cluster_public_fqdn_enabled": False},
        {"private_cluster_enabled": False, "private_cluster_public_fqdn_enabled": False},
    ),
]


@pytest.mark.parametrize(("kind", "good", "bad"), CLUSTERS)
def test_the_control_plane_is_private(kind: str, good: Any, bad: Any):
    assert "public control plane" not in rules(change(kind, good))
    assert "public control plane" in rules(change(kind, bad))


def test_the_control_plane_authorises_no_internet():
    good = CLUSTERS[0][1]
    open_to = {
        "master_authorized_networks_config": [{"cidr_blocks": [{"cidr_block": "0.0.0.0/0"}]}]
    }
    assert rules(change("google_container_cluster", good | open_to)) == {"public control plane"}


def google_pool(most: int | None = 4, taint: str = "nvidia.com/gpu", **node: Any) -> Any:
    values = {
        "autoscaling": [{"total_max_node_count": most}],
        "network_config": [{"enable_private_nodes": True}],
        "node_config": [
            {
                "machine_type": "a2-ultragpu-4g",
                "taint": [{"key": taint, "value": "present", "effect": "NO_SCHEDULE"}],
                "labels": {"pixtral.ai/tier": "decoder"},
                **node,
            }
        ],
    }
    return change("google_container_node_pool", values)


def aws_pool(most: int | None = 4, taint: str = "nvidia.com/gpu", spot: bool = False) -> Any:
    values = {
        "instance_types": ["p4de.24xlarge"],
        "scaling_config": [{"max_size": most}],
        "taint": [{"key": taint, "value": "present", "effect": "NO_SCHEDULE"}],
        "labels": {"pixtral.ai/tier": "decoder"},
        "capacity_type": "SPOT" if spot else "ON_DEMAND",
    }
    return change("aws_eks_node_group", values)


def azure_pool(most: int | None = 4, taint: str = "nvidia.com/gpu", spot: bool = False) -> Any:
    values = {
        "vm_size": "Standard_ND96amsr_A100_v4",
        "auto_scaling_enabled": True,
        "max_count": most,
        "node_taints": [f"{taint}=present:NoSchedule"],
        "node_labels": {"pixtral.ai/tier": "decoder"},
        "priority": "Spot" if spot else "Regular",
        "node_public_ip_enabled": False,
        "host_encryption_enabled": True,
    }
    return change("azurerm_kubernetes_cluster_node_pool", values)


@pytest.mark.parametrize("pool", [google_pool, aws_pool, azure_pool])
def test_gpu_pools_are_bounded_and_fenced(pool: Any):
    assert rules(pool()) == set()
    assert rules(pool(most=None)) == {"unbounded pool"}
    assert rules(pool(most=1000)) == {"unbounded pool"}
    assert rules(pool(taint="example.com/else")) == {"GPU pool without taint"}


@pytest.mark.parametrize(
    "pool",
    [
        google_pool(spot=True),
        google_pool(preemptible=True),
        aws_pool(spot=True),
        azure_pool(spot=True),
    ],
)
def test_a_decoder_is_never_spot(pool: Any):
    assert rules(pool) == {"spot decoder"}


def test_gpu_pools_together_keep_the_bound():
    bound = {"platform": {"after": {"gpu_nodes_max": 6, "ingress": {"class": "gce-internal"}}}}
    assert rules(google_pool(3), google_pool(3), outputs=bound) == set()
    assert rules(google_pool(3), google_pool(4), outputs=bound) == {"unbounded pool"}


def test_a_bound_by_zone_counts_every_zone():
    pool = google_pool()
    pool["change"]["after"] |= {
        "autoscaling": [{"max_node_count": 12}],
        "node_locations": ["a", "b", "c"],
    }
    assert rules(pool) == {"unbounded pool"}


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
    values = marked | {
        "deletion_protection_enabled": False,
        "transit_encryption_mode": "SERVER_AUTHENTICATION",
    }
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
            {"block_device_mappings": [{"ebs": [{"encrypted": "true"}]}]},
            {"block_device_mappings": [{"ebs": [{"encrypted": None}]}]},
        ),
        (
            "aws_db_parameter_group",
            {"parameter": [{"name": "rds.force_ssl", "value": "1"}]},
            {"parameter": []},
        ),
        (
            "google_redis_instance",
            {"transit_encryption_mode": "SERVER_AUTHENTICATION"},
            {"transit_encryption_mode": "DISABLED"},
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


def test_what_goes_away_is_not_judged():
    going = firewall(["0.0.0.0/0"], ["443"])
    going["change"] |= {"actions": ["delete"], "after": None}
    assert Plan.read(plan(going)).resources == ()


def test_the_ceiling_is_nodes_times_price_and_names_what_has_none():
    inputs = {
        "decoder": {"machine_type": "p4de.24xlarge", "max_nodes": 2},
        "head": {"machine_type": "m7i.xlarge", "max_nodes": 3},
        "vision": {"machine_type": "p4de.24xlarge", "max_nodes": 0},
    }
    told = {"planned_values": {"outputs": {"cost_inputs": {"value": inputs}}}}

    found = ceiling(told)
    assert found.usd_per_hour == Decimal("54.894")
    assert found.unpriced == ("m7i.xlarge",)
    assert "3 m7i.xlarge" in found.as_text()
    assert ceiling(told, {"m7i.xlarge": Decimal(1)}).usd_per_hour == Decimal("57.894")
