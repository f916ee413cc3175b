"""NetworkPolicies: everything is closed, and what must speak is let through by name.

    ingress controller ──8000──► gateways ──5432──► PostgreSQL
    monitoring ──8080, 8000──► pods              head ──► Redis, Kubernetes
    KubeRay's operator ──8265──► head            every pod ◄──► every pod of this system
    vision, decoders ──443──► bucket             gateways ──443──► hosts of budget alerts, if any
    preprocessing ──443──► public pictures, if they are fetched; never a private address

Who reaches a port of Ray or Serve (6379, 8265, 10001, 8404, 9101, 30000-31000, workers' and
replicas' own) may run code as us, or try to. Between pods of this system all ports are open, since
most of Ray's are drawn by lot; from elsewhere, none but those above. Tokens guard them as well.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from ops.deploy import layout
from ops.deploy.platform import Ingress, Platform, Tier
from ops.problem import Problem
from serve_app.config import Config
from serve_app.fetching import Fetching
from serve_app.preprocess.addresses import REFUSED_NETWORKS, Network

Manifest = dict[str, Any]

_HTTPS, _HTTP = 443, 80
# Where clouds answer pods that ask who they are: the metadata server and, on GKE and EKS, agents.
_IDENTITY = (("169.254.169.254/32", 80), ("169.254.169.252/32", 988), ("169.254.170.23/32", 80))
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
# IPv6 addresses that are given out are all in one part of it.
_PUBLIC = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("2000::/3"))
_KUBERNETES_API = (443, 6443)


def network_policies(config: Config, platform: Platform) -> list[Manifest]:
    """Raises Problem: where the load balancer's connections come from is not told."""
    alerts = [_anywhere()] if config.accounting.alert_hosts else []
    pictures = _pictures(config.preprocess.fetch)
    policies = {
        "default-deny": _policy({}, ["Ingress", "Egress"]),
        "within": _policy(_ours(), ["Ingress", "Egress"], [_from(_ours())], [_to(_ours())]),
        "names": _policy({}, ["Egress"], egress=[_dns()]),
        "weights": _policy(
            _tiers("vision", "decoder"), ["Egress"], egress=[_anywhere(), *_identity()]
        ),
        "rest": _policy(
            _tier("gateway"), ["Ingress"], [_let_in(_callers(platform.ingress), layout.REST_PORT)]
        ),
        "operator": _policy(
            _tier("head"),
            ["Ingress"],
            [_let_in([_namespace(layout.OPERATOR_NAMESPACE)], layout.DASHBOARD_PORT)],
        ),
        "scrape": _policy(_ours(), ["Ingress"], [_let_in(_monitoring(), layout.METRICS_PORT)]),
        "scrape-money": _policy(
            _tier("gateway"), ["Ingress"], [_let_in(_monitoring(), layout.REST_PORT)]
        ),
        "accounts": _policy(
            _tier("gateway"),
            ["Egress"],
            egress=[_reach(_hosts(platform.database.host), platform.database.port), *alerts],
        ),
        "head-state": _policy(
            _tier("head"),
            ["Egress"],
            egress=[
                _reach(_hosts(platform.redis.host), platform.redis.port),
                *(_reach([_block(cidr) for cidr in _PRIVATE], port) for port in _KUBERNETES_API),
            ],
        ),
    }
    if pictures:
        policies["pictures"] = _policy(_tier("preprocess"), ["Egress"], egress=pictures)
    return [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {
                "name": f"{layout.NAME}-{name}",
                "namespace": platform.namespace,
                "labels": dict(layout.LABELS),
            },
            "spec": spec,
        }
        for name, spec in policies.items()
    ]


def _policy(
    pods: Manifest,
    types: list[str],
    ingress: list[Manifest] | None = None,
    egress: list[Manifest] | None = None,
) -> Manifest:
    spec: Manifest = {"podSelector": pods, "policyTypes": types}
    return spec | ({"ingress": ingress} if ingress else {}) | ({"egress": egress} if egress else {})


def _ours() -> Manifest:
    return {"matchLabels": dict(layout.POD_LABELS)}


def _tier(tier: Tier) -> Manifest:
    return {"matchLabels": layout.POD_LABELS | {layout.GROUP_LABEL: layout.ray_group(tier)}}


def _tiers(*tiers: Tier) -> Manifest:
    groups = [layout.ray_group(tier) for tier in tiers]
    among = {"key": layout.GROUP_LABEL, "operator": "In", "values": groups}
    return {"matchLabels": dict(layout.POD_LABELS), "matchExpressions": [among]}


def _callers(ingress: Ingress) -> list[Manifest]:
    callers = [_block(cidr) for cidr in ingress.source_cidrs]
    if ingress.namespace is not None:
        callers.append(_namespace(ingress.namespace))
    if not callers:
        raise Problem(
            "platform.ingress names neither source_cidrs nor namespace, so the gateways' fence"
            " would keep its own load balancer out; give --callers CIDR"
        )
    return callers


def _monitoring() -> list[Manifest]:
    return [_namespace(layout.MONITORING_NAMESPACE)]


def _namespace(name: str) -> Manifest:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def _block(cidr: str) -> Manifest:
    return {"ipBlock": {"cidr": cidr}}


def _from(pods: Manifest) -> Manifest:
    return {"from": [{"podSelector": pods}]}


def _to(pods: Manifest) -> Manifest:
    return {"to": [{"podSelector": pods}]}


def _let_in(callers: list[Manifest], port: int) -> Manifest:
    return {"from": callers, "ports": [{"protocol": "TCP", "port": port}]}


def _reach(peers: list[Manifest], port: int) -> Manifest:
    return {"to": peers, "ports": [{"protocol": "TCP", "port": port}]}


def _dns() -> Manifest:
    return {
        "to": [_namespace("kube-system")],
        "ports": [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")],
    }


def _anywhere() -> Manifest:
    """By TLS. A bucket has no address of its own that a policy could name."""
    return {"ports": [{"protocol": "TCP", "port": _HTTPS}]}


def _pictures(fetching: Fetching) -> list[Manifest]:
    """Public addresses only, at the ports of the hosts that are allowed: what the fetcher keeps to
    by itself, kept to by the network, too."""
    if not fetching.enabled:
        return []
    ports = {int(port) for host in fetching.allow_hosts for port in host.split(":")[1:]}
    ports |= {_HTTPS, *([_HTTP] if fetching.allow_http else [])}
    own = tuple(map(ipaddress.ip_network, fetching.refused_networks))
    peers = [_but(everywhere, (*REFUSED_NETWORKS, *own)) for everywhere in _PUBLIC]
    return [_reach(peers, port) for port in sorted(ports)]


def _but(everywhere: Network, refused: tuple[Network, ...]) -> Manifest:
    """Kubernetes wants what is taken out to lie within."""
    inside = [
        str(network)
        for network in refused
        if network.version == everywhere.version and network.network_address in everywhere
    ]
    return {"ipBlock": {"cidr": str(everywhere), "except": inside}}


def _identity() -> list[Manifest]:
    return [_reach([_block(cidr)], port) for cidr, port in _IDENTITY]


def _hosts(host: str) -> list[Manifest]:
    """A policy knows addresses only; of a name it is known that its address is private."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return [_block(cidr) for cidr in _PRIVATE]
    return [_block(f"{address}/{address.max_prefixlen}")]
