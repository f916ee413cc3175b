"""What may be reached from outside: each rule on a plan that breaks it, and on it mended."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.terraform.fragments import change, rules

_ENTRA_ONLY = [{"client_protocol": "Encrypted", "access_keys_authentication_enabled": False}]


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
            {"public_network_access": "Disabled", "default_database": _ENTRA_ONLY},
            {"public_network_access": None, "default_database": _ENTRA_ONLY},
        ),
    ],
)
def test_public_addresses(kind: str, good: Any, bad: Any):
    assert rules(change(kind, good)) == set()
    assert rules(change(kind, bad)) == {"public address"}


@pytest.mark.parametrize(
    ("address", "way_out", "way_in"),
    [
        ("aws_eip", "aws_nat_gateway", "aws_network_interface"),
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
    assert "public control plane" in rules(change("google_container_cluster", good | open_to))
    assert "public control plane" not in rules(change("google_container_cluster", good))
