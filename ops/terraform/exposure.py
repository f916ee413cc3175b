"""Policies: nothing is reachable from outside that is not meant to be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ops.terraform.arm import redis_clusters
from ops.terraform.kubernetes import doors
from ops.terraform.openings import is_open, openings
from ops.terraform.plan import Plan, Resource, at, blocks
from ops.terraform.violation import Violation

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


def public_ingress(plan: Plan) -> Iterator[Violation]:
    """No firewall rule or security group lets the internet in."""
    for opening in openings(plan):
        for source in opening.sources:
            if is_open(source):
                yield Violation.of(opening.resource, "public ingress", f"lets in {source}")


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
    for gateway in plan.of("azurerm_application_gateway", "azurerm_lb"):
        for argument in _public_frontends(gateway):
            yield Violation.of(gateway, "public address", f"a frontend has a {argument}")
    for deployment, cluster in redis_clusters(plan):
        if cluster.get("publicNetworkAccess") != "Disabled":
            told = "publicNetworkAccess is not Disabled"
            yield Violation.of(deployment, "public address", told)


def _public_frontends(gateway: Resource) -> Iterator[str]:
    """Also where the address is somebody else's, given as a literal, or known after the apply."""
    for part in (gateway.values, gateway.unknown):
        for frontend in blocks(at(part, "frontend_ip_configuration")):
            for argument in ("public_ip_address_id", "public_ip_prefix_id"):
                if frontend.get(argument):
                    yield argument


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
            if is_open(str(network.get("cidr_block"))):
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
