"""Firewall rules and security groups of a plan, whichever cloud's, as one shape."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ops.terraform.plan import Plan, Resource, blocks

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
# Wider than any range that a cloud documents for its health checks.
_WIDEST = {4: 16, 6: 32}
_ANYWHERE = {"*", "any", "internet"}
# As clouds spell TCP and everything; what is neither (ICMP, say) has no ports.
_WITH_PORTS = {"tcp", "6", "all", "-1", "*"}
_LAST_PORT = 65535


@dataclass(frozen=True, slots=True)
class Opening:
    """One rule that lets traffic in.

    Attributes:
        sources: ranges and service tags; none where the rule goes by group, tag or account.
        ports: None is all of them.
        has_ports: whether it is about TCP at all.
    """

    resource: Resource
    sources: tuple[str, ...]
    ports: tuple[tuple[int, int], ...] | None
    has_ports: bool = True

    @property
    def is_wide(self) -> bool:
        """Whether it opens every port."""
        return self.ports is None or any(
            low <= 1 and high >= _LAST_PORT for low, high in self.ports
        )

    def covers(self, port: int) -> bool:
        return self.ports is None or any(low <= port <= high for low, high in self.ports)


def openings(plan: Plan) -> Iterator[Opening]:
    yield from _google(plan)
    yield from _aws(plan)
    yield from _azure(plan)


def is_open(source: str) -> bool:
    """Whether ``source`` is the internet, or so much of it that it may as well be."""
    if source.lower() in _ANYWHERE:
        return True
    network = as_network(source)
    if network is None:
        return False
    return not _within(network, _PRIVATE) and network.prefixlen < _WIDEST[network.version]


def is_inside(source: str, plan: Plan) -> bool:
    """Whether ``source`` lies in the network that the plan itself makes: nodes and pods of its own,
    which only network policies can tell apart."""
    network = as_network(source)
    return network is not None and _within(network, tuple(_own(plan)))


def as_network(source: str) -> Network | None:
    """None for what is no range: a service tag, such as AzureLoadBalancer."""
    try:
        return ipaddress.ip_network(source, strict=False)
    except ValueError:
        return None


def _own(plan: Plan) -> Iterator[Network]:
    ranges: list[Any] = []
    for network in plan.of("azurerm_virtual_network"):
        ranges += network.get("address_space") or ()
    for cluster in plan.of("azurerm_kubernetes_cluster"):
        ranges.append(cluster.get("network_profile.pod_cidr"))
    for network in plan.of("aws_vpc", "aws_vpc_ipv4_cidr_block_association"):
        ranges.append(network.get("cidr_block"))
    for subnetwork in plan.of("google_compute_subnetwork"):
        ranges.append(subnetwork.get("ip_cidr_range"))
        ranges += [
            each.get("ip_cidr_range") for each in blocks(subnetwork.get("secondary_ip_range"))
        ]
    for each in ranges:
        if each and (known := as_network(str(each))) is not None:
            yield known


def _within(network: Network, others: Iterable[Network]) -> bool:
    return any(
        network.version == each.version and network.subnet_of(each)  # type: ignore[arg-type]
        for each in others
    )


def _google(plan: Plan) -> Iterator[Opening]:
    for firewall in plan.of("google_compute_firewall"):
        if firewall.get("direction") == "EGRESS" or not firewall.get("allow"):
            continue
        sources = firewall.get("source_ranges") or []
        narrowed = firewall.get("source_tags") or firewall.get("source_service_accounts")
        # Google's default where no source is said.
        if not sources and not narrowed and not firewall.undecided("source_ranges"):
            sources = ["0.0.0.0/0"]
        for allowed in blocks(firewall.get("allow")):
            ports = _ranges(allowed.get("ports"))
            yield Opening(firewall, tuple(sources), ports, _has_ports(allowed.get("protocol")))


def _aws(plan: Plan) -> Iterator[Opening]:
    for rule in plan.of("aws_vpc_security_group_ingress_rule"):
        sources = _present(rule.get("cidr_ipv4"), rule.get("cidr_ipv6"))
        yield _aws_opening(rule, sources, rule.values)
    for rule in plan.of("aws_security_group_rule"):
        if rule.get("type") == "ingress":
            yield _aws_opening(rule, _cidrs(rule.values), rule.values)
    for group in plan.of("aws_security_group", "aws_default_security_group"):
        for inline in blocks(group.get("ingress")):
            yield _aws_opening(group, _cidrs(inline), inline)


def _aws_opening(resource: Resource, sources: tuple[str, ...], rule: Any) -> Opening:
    protocol = str(rule.get("ip_protocol", rule.get("protocol")))
    low, high = rule.get("from_port"), rule.get("to_port")
    everything = low is None or high is None or protocol == "-1"
    ports = None if everything else ((int(low), int(high)),)
    return Opening(resource, sources, ports, _has_ports(protocol))


def _azure(plan: Plan) -> Iterator[Opening]:
    groups = [
        (group, blocks(group.get("security_rule")))
        for group in plan.of("azurerm_network_security_group")
    ]
    alone = [(rule, [rule.values]) for rule in plan.of("azurerm_network_security_rule")]
    for resource, rules in groups + alone:
        for rule in rules:
            if rule.get("direction") != "Inbound" or rule.get("access") != "Allow":
                continue
            sources = _present(
                rule.get("source_address_prefix"), *(rule.get("source_address_prefixes") or ())
            )
            said = _present(
                rule.get("destination_port_range"), *(rule.get("destination_port_ranges") or ())
            )
            ports = None if "*" in said else _ranges(said)
            yield Opening(resource, sources, ports, _has_ports(rule.get("protocol")))


def _has_ports(protocol: Any) -> bool:
    return protocol is None or str(protocol).lower() in _WITH_PORTS


def _ranges(ports: Iterable[str] | None) -> tuple[tuple[int, int], ...] | None:
    """("443", "8000-8010") as numbers; None (all) where none is said."""
    spans = [str(port).partition("-") for port in ports or ()]
    return tuple((int(low), int(high or low)) for low, _, high in spans) or None


def _cidrs(rule: Any) -> tuple[str, ...]:
    return (*(rule.get("cidr_blocks") or ()), *(rule.get("ipv6_cidr_blocks") or ()))


def _present(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value)
