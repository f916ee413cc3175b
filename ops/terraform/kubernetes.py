"""Kubernetes objects of a plan: Terraform's own resources, and what charts get as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ops.terraform.plan import Plan, Resource, blocks

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

    @property
    def outward(self) -> bool:
        return self.kind == "Ingress" or self.way in _OUTWARD


def doors(plan: Plan) -> Iterator[Door]:
    for service in plan.of(*_SERVICES):
        annotations = service.get("metadata.annotations") or {}
        ports = _numbers(service.get("spec"), ("port", "target_port"))
        yield Door(service, "Service", service.get("spec.type"), annotations, ports)
    for ingress in plan.of(*_INGRESSES):
        annotations = ingress.get("metadata.annotations") or {}
        ports = _numbers(ingress.get("spec"), ("number",))
        way = ingress.get("spec.ingress_class_name")
        yield Door(ingress, "Ingress", way, annotations, ports)
    for release in plan.of("helm_release"):
        for document in _documents(release):
            yield from _manifest(release, document)


def _manifest(release: Resource, document: Mapping[str, Any]) -> Iterator[Door]:
    spec = document.get("spec") or {}
    annotations = (document.get("metadata") or {}).get("annotations") or {}
    if document.get("kind") == "Service":
        ports = _numbers(spec, ("port", "targetPort"))
        yield Door(release, "Service", spec.get("type", "ClusterIP"), annotations, ports)
    if document.get("kind") == "Ingress":
        # GKE reads the class in the annotation only.
        way = spec.get("ingressClassName", annotations.get("kubernetes.io/ingress.class"))
        yield Door(release, "Ingress", way, annotations, _numbers(spec, ("number",)))


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


def _numbers(value: Any, names: tuple[str, ...]) -> frozenset[int]:
    """Every number that stands behind one of ``names``, at any depth."""
    found: set[int] = set()
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key in names and str(inner).isdigit():
                found.add(int(inner))
            found |= _numbers(inner, names)
    for item in blocks(value) if isinstance(value, list) else ():
        found |= _numbers(item, names)
    return frozenset(found)
