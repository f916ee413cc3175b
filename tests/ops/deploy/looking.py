"""Finds things in rendered manifests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ops.deploy.manifests import Manifest


def of_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def ray_service(manifests: list[Manifest]) -> Manifest:
    (found,) = of_kind(manifests, "RayService")
    return found


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Group -> its pod's spec."""
    cluster = ray_service(manifests)["spec"]["rayClusterConfig"]
    groups = {"headgroup": cluster["headGroupSpec"]} | {
        group["groupName"]: group for group in cluster["workerGroupSpecs"]
    }
    return {name: group["template"]["spec"] for name, group in groups.items()}


def group(manifests: list[Manifest], name: str) -> Manifest:
    cluster = ray_service(manifests)["spec"]["rayClusterConfig"]
    found: Manifest
    (found,) = (each for each in cluster["workerGroupSpecs"] if each["groupName"] == name)
    return found


def mebibytes(quantity: str) -> int:
    assert quantity.endswith("Mi"), quantity
    return int(quantity.removesuffix("Mi"))


def cores(quantity: str) -> float:
    assert quantity.endswith("m"), quantity
    return int(quantity.removesuffix("m")) / 1000


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    else:
        yield value
