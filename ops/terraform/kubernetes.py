"""Kubernetes objects of a plan: Terraform's own resources, and what charts get as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ops.terraform.plan import Plan, Resource, leaves

_SERVICES = ("kubernetes_service", "kubernetes_service_v1")
_INGRESSES = ("kubernetes_ingress_v1",)
_OUTWARD = ("LoadBalancer", "NodePort")


@dataclass(frozen=True, slots=True)
class Door:
    """A Service or Ingress, whoever declares it; ``ports`` are those it leads to."""

    resource: Resource
    kind: str
    # A Service's type, an Ingress's class.
    way: str | None
    annotations: Mapping[str, str]
    ports: frozenset[int]
    port_names: frozenset[str] = frozenset()

    @property
    def outward(self) -> bool:
        return self.kind == "Ingress" or self.way in _OUTWARD


@dataclass(frozen=True, slots=True)
class Admission:
    """One ingress rule of a rendered NetworkPolicy.

    Attributes:
        peers: as the policy writes them; an empty one is everybody.
        ports: first and last, or a name; None is all of them.
    """

    resource: Resource
    name: str
    peers: tuple[Mapping[str, Any], ...]
    ports: tuple[tuple[int, int] | str, ...] | None

    def covers(self, port: int, name: str) -> bool:
        return self.ports is None or any(
            each == name if isinstance(each, str) else each[0] <= port <= each[1]
            for each in self.ports
        )


def doors(plan: Plan) -> Iterator[Door]:
    for service in plan.of(*_SERVICES):
        annotations = service.get("metadata.annotations") or {}
        spec = service.get("spec")
        ports = _numbers(spec, ("port", "target_port"))
        names = _names(spec, ("target_port",))
        yield Door(service, "Service", service.get("spec.type"), annotations, ports, names)
    for ingress in plan.of(*_INGRESSES):
        annotations = ingress.get("metadata.annotations") or {}
        spec = ingress.get("spec")
        ports, names = _numbers(spec, ("number",)), _names(spec, ("name",))
        way = ingress.get("spec.ingress_class_name")
        yield Door(ingress, "Ingress", way, annotations, ports, names)
    for release in plan.of("helm_release"):
        for document in _documents(release):
            yield from _manifest(release, document)


def admissions(plan: Plan) -> Iterator[Admission]:
    for release in plan.of("helm_release"):
        for document in _documents(release):
            if document.get("kind") != "NetworkPolicy":
                continue
            name = (document.get("metadata") or {}).get("name", "")
            for rule in (document.get("spec") or {}).get("ingress") or ():
                peers = tuple(rule.get("from") or ({},))
                yield Admission(release, name, peers, _admitted(rule.get("ports")))


def _manifest(release: Resource, document: Mapping[str, Any]) -> Iterator[Door]:
    spec = document.get("spec") or {}
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    if document.get("kind") == "Service":
        ports = _numbers(spec, ("port", "targetPort"))
        names = _names(spec, ("targetPort",))
        yield Door(release, "Service", spec.get("type", "ClusterIP"), annotations, ports, names)
    if document.get("kind") == "Ingress":
        # GKE reads the class in the annotation only.
        way = spec.get("ingressClassName", annotations.get("kubernetes.io/ingress.class"))
        ports, names = _numbers(spec, ("number",)), _names(spec, ("name",))
        yield Door(release, "Ingress", way, annotations, ports, names)


def _documents(release: Resource) -> Iterator[Mapping[str, Any]]:
    """Whatever in the release's values looks like a manifest."""
    for text in release.get("values") or ():
        if text is not None:
            yield from _kinds(yaml.safe_load(text))


def _kinds(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if "kind" in value:
            yield value
        for inner in value.values():
            yield from _kinds(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _kinds(inner)


def _admitted(ports: Any) -> tuple[tuple[int, int] | str, ...] | None:
    """Of a rule without ports, and of a port without a number, all."""
    admitted: list[tuple[int, int] | str] = []
    for each in ports or ():
        first = each.get("port")
        if each.get("protocol", "TCP") != "TCP":
            continue
        if first is None:
            return None
        numbered = str(first).isdigit()
        admitted.append((int(first), int(each.get("endPort") or first)) if numbered else str(first))
    return tuple(admitted) if ports else None


def _numbers(value: Any, names: tuple[str, ...]) -> frozenset[int]:
    """Every number that stands behind one of ``names``, at any depth."""
    return frozenset(int(each) for each in _behind(value, names) if each.isdigit())


def _names(value: Any, names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(each for each in _behind(value, names) if not each.isdigit())


def _behind(value: Any, names: tuple[str, ...]) -> Iterator[str]:
    for path, leaf in leaves(value):
        if path.rpartition(".")[2] in names and leaf is not None:
            yield str(leaf)
