"""Ray's dashboard: every way to it that a plan can open, by name, by number or with all ports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.terraform.fragments import change, rules

_REACHED = {"dashboard reachable"}
_OURS = {"podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "pixtral"}}}


def firewall(source: str, ports: list[str] | None, protocol: str = "tcp") -> Any:
    allow = [{"protocol": protocol, "ports": ports}]
    values = {"direction": "INGRESS", "source_ranges": [source], "allow": allow}
    return change("google_compute_firewall", values)


def admitted(protocol: str, low: int | None, high: int | None, source: str | None = None) -> Any:
    values = {"cidr_ipv4": source, "from_port": low, "to_port": high, "ip_protocol": protocol}
    return change("aws_vpc_security_group_ingress_rule", values)


def inbound(source: str, ports: str) -> Any:
    rule = {
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "*",
        "source_address_prefix": source,
        "destination_port_range": ports,
    }
    return change("azurerm_network_security_group", {"security_rule": [rule]})


@pytest.mark.parametrize(
    "opening",
    [
        firewall("10.0.0.0/8", None),
        firewall("10.0.0.0/8", None, "all"),
        firewall("10.0.0.0/8", ["1-65535"]),
        admitted("-1", None, None, "10.0.0.0/8"),
        admitted("tcp", 0, 65535, "10.0.0.0/8"),
        admitted("-1", None, None),  # from another security group
        inbound("10.0.0.0/8", "*"),
        inbound("10.0.0.0/8", "0-65535"),
        inbound("VirtualNetwork", "*"),  # and whatever is peered with it
    ],
)
def test_all_ports_are_the_dashboards_too(opening: Any):
    assert rules(opening) == _REACHED


def test_what_has_no_ports_leads_nowhere():
    assert rules(firewall("10.0.0.0/8", None, "icmp")) == set()
    assert rules(admitted("icmp", -1, -1, "10.0.0.0/8")) == set()


def test_azures_health_probes_come_from_no_network():
    assert rules(inbound("AzureLoadBalancer", "*")) == set()


@pytest.mark.parametrize(
    ("network", "opening"),
    [
        (change("azurerm_virtual_network", {"address_space": ["10.1.0.0/16"]}), inbound),
        (change("aws_vpc", {"cidr_block": "10.1.0.0/16"}), None),
        (change("google_compute_subnetwork", {"ip_cidr_range": "10.1.0.0/16"}), firewall),
    ],
)
def test_a_clusters_own_nodes_and_pods_are_the_network_policies_to_fence(
    network: Any, opening: Any
):
    def everything(source: str) -> Any:
        if opening is None:
            return admitted("-1", None, None, source)
        return opening(source, "*" if opening is inbound else None)

    assert rules(network, everything("10.1.4.0/22")) == set()
    assert rules(network, everything("10.0.0.0/8")) == _REACHED
    assert rules(everything("10.1.4.0/22")) == _REACHED


def policy(rule: Any) -> Any:
    document = {
        "kind": "NetworkPolicy",
        "metadata": {"name": "head"},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [rule]},
    }
    return change("helm_release", {"values": [json.dumps({"manifests": [document]})]})


def _namespace(name: str) -> dict[str, Any]:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"from": [_namespace("monitoring")]},
        {"from": [_namespace("kuberay-system")]},  # one port is enough for it
        {"ports": [{"port": 8265}]},
        {"from": [_namespace("monitoring")], "ports": [{"protocol": "TCP"}]},
        {"from": [_namespace("monitoring")], "ports": [{"port": "dashboard"}]},
        {"from": [_namespace("monitoring")], "ports": [{"port": 8000, "endPort": 9000}]},
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 8265}]},
        {"from": [_OURS, {"podSelector": {}}]},
        {"from": [_OURS | _namespace("monitoring")]},
    ],
)
def test_network_policies_that_let_others_at_it(rule: Any):
    assert rules(policy(rule)) == _REACHED


@pytest.mark.parametrize(
    "rule",
    [
        {"from": [_OURS]},
        {"from": [_namespace("kuberay-system")], "ports": [{"protocol": "TCP", "port": 8265}]},
        {"from": [_namespace("monitoring")], "ports": [{"protocol": "TCP", "port": 8080}]},
        {"from": [_namespace("monitoring")], "ports": [{"protocol": "UDP", "port": 8265}]},
    ],
)
def test_network_policies_that_do_not(rule: Any):
    assert rules(policy(rule)) == set()


def test_a_service_may_not_lead_there_by_the_ports_name():
    ports = [{"port": 443, "targetPort": "dashboard"}]
    service = {"kind": "Service", "spec": {"type": "NodePort", "ports": ports}}
    release = change("helm_release", {"values": [json.dumps({"manifests": [service]})]})

    assert rules(release) == _REACHED
