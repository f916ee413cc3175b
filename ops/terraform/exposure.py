"""Policies: nothing is reachable from outside that is not meant to be."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ops.terraform.kubernetes import doors
from ops.terraform.plan import Plan, Resource, blocks
from ops.terraform.violation import Violation

_DASHBOARD = 8265
_PRIVATE = tuple(
    ipaddress.ip_network(each)
    for each in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
# Wider than any range that a cloud documents for its health checks.
_WIDEST = {4: 16, 6: 32}
_ANYWHERE = {"*", "any", "internet"}

_INTERNAL_ANNOTATIONS = {
    "networking.gke.io/load-balancer-type": "Internal",
    "cloud.google.com/load-balancer-type": "Internal",
    "service.beta.kubernetes.io/aws-load-balancer-scheme": "internal",
    "service.beta.kubernetes.io/aws-load-balancer-internal": "true",
    "service.beta.kubernetes.io/azure-load-balancer-internal": "true",
}
# Ingress class -> the annotation that keeps it inside; None: the class itself does.
_INTERNAL_CLASSES: dict[str, tuple[str, str] | None] = {
    "gce-internal": None,
    "alb": ("alb.ingress.kubernetes.io/scheme", "internal"),
    "azure-application-gateway": ("appgw.ingress.kubernetes.io/use-private-ip", "true"),
}
# What makes an address one of the way out only.
_EGRESS = {
    "aws_nat_gateway",
    "azurerm_nat_gateway_public_ip_association",
    "google_compute_router_nat",
}


@dataclass(frozen=True, slots=True)
class _Opening:
    """One rule that lets traffic in; ports None is all of them."""

    resource: Resource
    sources: tuple[str, ...]
    ports: tuple[tuple[int, int], ...] | None

    def names(self, port: int) -> bool:
        return self.ports is not None and any(low <= port <= high for low, high in self.ports)


def public_ingress(plan: Plan) -> Iterator[Violation]:
    """No firewall rule or security group lets the internet in."""
    for opening in _openings(plan):
        for source in opening.sources:
            if _is_open(source):
                yield Violation.of(opening.resource, "public ingress", f"lets in {source}")


def dashboard(plan: Plan) -> Iterator[Violation]:
    """Ray's dashboard runs whatever it is sent: no rule, service or ingress names its port."""
    for opening in _openings(plan):
        if opening.names(_DASHBOARD):
            yield Violation.of(opening.resource, "dashboard reachable", f"opens port {_DASHBOARD}")
    for door in doors(plan):
        if door.outward and _DASHBOARD in door.ports:
            told = f"leads to port {_DASHBOARD} by a {door.kind}"
            yield Violation.of(door.resource, "dashboard reachable", told)


def public_addresses(plan: Plan) -> Iterator[Violation]:
    """Nothing has a public address but the way out (NAT)."""
    for address in plan.of("aws_eip", "azurerm_public_ip"):
        users = {user.type for user in plan.users(address)}
        if not users or not users <= _EGRESS:
            yield Violation.of(address, "public address", "is for something else than NAT")
    for address in plan.of("google_compute_address", "google_compute_global_address"):
        if address.get("address_type") != "INTERNAL":
            yield Violation.of(address, "public address", "address_type is not INTERNAL")
    for kind, path, wanted in _PRIVATE_ONLY:
        for resource in plan.of(kind):
            if resource.get(path) != wanted:
                told = f"{path} is {resource.get(path)}, not {wanted}"
                yield Violation.of(resource, "public address", told)
    for instance in plan.of("google_compute_instance"):
        for interface in blocks(instance.get("network_interface")):
            if interface.get("access_config"):
                yield Violation.of(instance, "public address", "has an access_config")
    for template in plan.of("aws_launch_template"):
        for interface in blocks(template.get("network_interfaces")):
            if interface.get("associate_public_ip_address") != "false":
                yield Violation.of(template, "public address", "may give nodes public addresses")


# type, path, the value that keeps it private. Null is not it: some clouds' default is public.
_PRIVATE_ONLY: tuple[tuple[str, str, Any], ...] = (
    ("aws_db_instance", "publicly_accessible", False),
    ("aws_lb", "internal", True),
    ("aws_subnet", "map_public_ip_on_launch", False),
    ("azurerm_kubernetes_cluster", "default_node_pool.node_public_ip_enabled", False),
    ("azurerm_kubernetes_cluster_node_pool", "node_public_ip_enabled", False),
    ("azurerm_managed_redis", "public_network_access", "Disabled"),
    ("azurerm_postgresql_flexible_server", "public_network_access_enabled", False),
    ("azurerm_redis_cache", "public_network_access_enabled", False),
    ("azurerm_storage_account", "public_network_access_enabled", False),
    ("google_compute_forwarding_rule", "load_balancing_scheme", "INTERNAL_MANAGED"),
    ("google_container_cluster", "private_cluster_config.enable_private_nodes", True),
    ("google_container_node_pool", "network_config.enable_private_nodes", True),
    ("google_sql_database_instance", "settings.ip_configuration.ipv4_enabled", False),
)

_CONTROL_PLANES: tuple[tuple[str, str, Any], ...] = (
    ("aws_eks_cluster", "vpc_config.endpoint_private_access", True),
    ("aws_eks_cluster", "vpc_config.endpoint_public_access", False),
    ("azurerm_kubernetes_cluster", "private_cluster_enabled", True),
    ("azurerm_kubernetes_cluster", "private_cluster_public_fqdn_enabled", False),
    ("google_container_cluster", "private_cluster_config.enable_private_endpoint", True),
)


def public_control_plane(plan: Plan) -> Iterator[Violation]:
    """Kubernetes' API answers on private addresses only, and to nobody from everywhere."""
    rule = "public control plane"
    for kind, path, wanted in _CONTROL_PLANES:
        for cluster in plan.of(kind):
            if cluster.get(path) != wanted:
                yield Violation.of(cluster, rule, f"{path} is {cluster.get(path)}, not {wanted}")
    for cluster in plan.of("google_container_cluster"):
        dns = "control_plane_endpoints_config.dns_endpoint_config.allow_external_traffic"
        if cluster.get(dns):
            yield Violation.of(cluster, rule, f"{dns} is on")
        networks = blocks(cluster.get("master_authorized_networks_config.cidr_blocks"))
        for network in networks:
            if _is_open(str(network.get("cidr_block"))):
                yield Violation.of(cluster, rule, f"authorises {network['cidr_block']}")


def load_balancers(plan: Plan) -> Iterator[Violation]:
    """A load balancer says that it is internal, in the words of its cloud."""
    rule = "load balancer not internal"
    for door in doors(plan):
        if door.kind == "Service" and door.way == "LoadBalancer":
            annotated = door.annotations.items()
            if not any(pair in annotated for pair in _INTERNAL_ANNOTATIONS.items()):
                yield Violation.of(door.resource, rule, "has no internal annotation")
        if door.kind == "Ingress" and (outside := _internal(door.way, door.annotations)):
            yield Violation.of(door.resource, rule, outside)
    platform = plan.outputs.get("platform")
    if platform is not None and isinstance(platform.value, dict):
        ingress = platform.value.get("ingress") or {}
        if said := _internal(ingress.get("class"), ingress.get("annotations")):
            yield Violation("output.platform.ingress", rule, said)


def _internal(name: str | None, annotations: Mapping[str, str] | None) -> str | None:
    """What keeps an ingress from being internal; None when it is."""
    if name not in _INTERNAL_CLASSES:
        return f"class {name} is not known to be internal"
    wanted = _INTERNAL_CLASSES[name]
    if wanted is not None and (annotations or {}).get(wanted[0]) != wanted[1]:
        return f"{wanted[0]} is not {wanted[1]}"
    return None


def _openings(plan: Plan) -> Iterator[_Opening]:
    yield from _google_openings(plan)
    yield from _aws_openings(plan)
    yield from _azure_openings(plan)


def _google_openings(plan: Plan) -> Iterator[_Opening]:
    for firewall in plan.of("google_compute_firewall"):
        if firewall.get("direction") == "EGRESS" or not firewall.get("allow"):
            continue
        sources = firewall.get("source_ranges") or []
        narrowed = firewall.get("source_tags") or firewall.get("source_service_accounts")
        # Google's default where no source is said.
        if not sources and not narrowed and not firewall.undecided("source_ranges"):
            sources = ["0.0.0.0/0"]
        for allowed in blocks(firewall.get("allow")):
            yield _Opening(firewall, tuple(sources), _ranges(allowed.get("ports")))


def _aws_openings(plan: Plan) -> Iterator[_Opening]:
    for rule in plan.of("aws_vpc_security_group_ingress_rule"):
        sources = _present(rule.get("cidr_ipv4"), rule.get("cidr_ipv6"))
        yield _Opening(rule, sources, _span(rule.values))
    for rule in plan.of("aws_security_group_rule"):
        if rule.get("type") == "ingress":
            yield _Opening(rule, _cidrs(rule.values), _span(rule.values))
    for group in plan.of("aws_security_group", "aws_default_security_group"):
        for inline in blocks(group.get("ingress")):
            yield _Opening(group, _cidrs(inline), _span(inline))


def _azure_openings(plan: Plan) -> Iterator[_Opening]:
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
            ports = _present(
                rule.get("destination_port_range"), *(rule.get("destination_port_ranges") or ())
            )
            yield _Opening(resource, sources, None if "*" in ports else _ranges(ports))


def _is_open(source: str) -> bool:
    """Whether ``source`` is the internet, or so much of it that it may as well be."""
    if source.lower() in _ANYWHERE:
        return True
    try:
        network = ipaddress.ip_network(source, strict=False)
    except ValueError:  # a service tag, such as AzureLoadBalancer
        return False
    private = any(
        network.version == each.version and network.subnet_of(each)  # type: ignore[arg-type]
        for each in _PRIVATE
    )
    return not private and network.prefixlen < _WIDEST[network.version]


def _ranges(ports: Iterable[str] | None) -> tuple[tuple[int, int], ...] | None:
    """("443", "8000-8010") as numbers; None (all) where none is said."""
    spans = [str(port).partition("-") for port in ports or ()]
    return tuple((int(low), int(high or low)) for low, _, high in spans) or None


def _span(rule: Any) -> tuple[tuple[int, int], ...] | None:
    low, high = rule.get("from_port"), rule.get("to_port")
    if low is None or high is None or str(rule.get("ip_protocol", rule.get("protocol"))) == "-1":
        return None
    return ((int(low), int(high)),)


def _cidrs(rule: Any) -> tuple[str, ...]:
    return (*(rule.get("cidr_blocks") or ()), *(rule.get("ipv6_cidr_blocks") or ()))


def _present(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value)
