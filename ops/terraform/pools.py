"""Policies: GPU nodes are bounded, fenced, and never taken away under a decoder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ops.terraform.plan import Plan, Resource, blocks
from ops.terraform.violation import Violation

# The most GPU nodes that any environment may ever ask for (also validated by the modules).
GPU_NODES = 32
_CPU_NODES = 64

_TIER = "pixtral.ai/tier"
_GPU_TAINT = "nvidia.com/gpu"
_REPELS = {"NO_SCHEDULE", "NO_EXECUTE", "NoSchedule", "NoExecute"}
_GPU_MACHINES = {
    "google_container_node_pool": ("a2-", "a3-", "a4-", "g2-", "g4-"),
    "aws_eks_node_group": ("p3", "p4", "p5", "p6", "g4", "g5", "g6"),
    "azurerm_kubernetes_cluster_node_pool": ("Standard_NC", "Standard_ND", "Standard_NV"),
    "azurerm_kubernetes_cluster": ("Standard_NC", "Standard_ND", "Standard_NV"),
}


@dataclass(frozen=True, slots=True)
class _Pool:
    resource: Resource
    machine: str
    # None: as many as the cloud likes.
    most: int | None
    # (key, effect)
    taints: frozenset[tuple[str, str]]
    tier: str | None
    spot: bool

    @property
    def has_gpus(self) -> bool:
        return self.machine.startswith(_GPU_MACHINES[self.resource.type])


def bounds(plan: Plan) -> Iterator[Violation]:
    """Every pool says the most nodes it may have; the GPU pools together keep the environment's."""
    rule = "unbounded pool"
    gpu_nodes = 0
    for pool in _pools(plan):
        ceiling = GPU_NODES if pool.has_gpus else _CPU_NODES
        if pool.most is None:
            yield Violation.of(pool.resource, rule, "has no upper bound")
        elif pool.most > ceiling:
            yield Violation.of(pool.resource, rule, f"may have {pool.most} nodes, over {ceiling}")
        elif pool.has_gpus:
            gpu_nodes += pool.most
    platform = plan.outputs.get("platform")
    said = platform.value.get("gpu_nodes_max") if platform and platform.value else None
    allowed = GPU_NODES if said is None else min(GPU_NODES, int(said))
    if gpu_nodes > allowed:
        message = f"together may have {gpu_nodes} nodes, over {allowed}"
        yield Violation("GPU pools", rule, message)
    for cluster in plan.of("google_container_cluster"):
        if cluster.get("cluster_autoscaling.enabled"):
            yield Violation.of(cluster, rule, "makes pools by itself (cluster_autoscaling)")
    for cluster in plan.of("azurerm_kubernetes_cluster"):
        if cluster.get("node_provisioning_profile.mode") == "Auto":
            yield Violation.of(cluster, rule, "makes pools by itself (node_provisioning_profile)")


def taints(plan: Plan) -> Iterator[Violation]:
    """Only what asks for GPUs runs on GPU nodes."""
    for pool in _pools(plan):
        fenced = any(key == _GPU_TAINT and effect in _REPELS for key, effect in pool.taints)
        if pool.has_gpus and not fenced:
            yield Violation.of(
                pool.resource, "GPU pool without taint", f"has no {_GPU_TAINT} taint"
            )


def spot_decoder(plan: Plan) -> Iterator[Violation]:
    """A decoder that is taken away kills its streams; a pool that names no tier may be one."""
    for pool in _pools(plan):
        if pool.spot and pool.tier in ("decoder", "head", None):
            told = f"is a spot pool of tier {pool.tier}"
            yield Violation.of(pool.resource, "spot decoder", told)


def _pools(plan: Plan) -> Iterator[_Pool]:
    for pool in plan.of("google_container_node_pool"):
        yield _Pool(
            pool,
            machine=pool.get("node_config.machine_type") or "",
            most=_google_most(pool),
            taints=frozenset(
                (each["key"], each["effect"]) for each in blocks(pool.get("node_config.taint"))
            ),
            tier=(pool.get("node_config.labels") or {}).get(_TIER),
            spot=bool(pool.get("node_config.spot") or pool.get("node_config.preemptible")),
        )
    for pool in plan.of("aws_eks_node_group"):
        yield _Pool(
            pool,
            machine=next(iter(pool.get("instance_types") or ()), ""),
            most=_whole(pool.get("scaling_config.max_size")),
            taints=frozenset((each["key"], each["effect"]) for each in blocks(pool.get("taint"))),
            tier=(pool.get("labels") or {}).get(_TIER),
            spot=pool.get("capacity_type") == "SPOT",
        )
    for pool in plan.of("azurerm_kubernetes_cluster_node_pool"):
        yield _azure_pool(pool, "", spot=pool.get("priority") == "Spot")
    for cluster in plan.of("azurerm_kubernetes_cluster"):
        yield _azure_pool(cluster, "default_node_pool.", spot=False)


def _azure_pool(resource: Resource, at: str, *, spot: bool) -> _Pool:
    scaled = resource.get(f"{at}auto_scaling_enabled")
    return _Pool(
        resource,
        machine=resource.get(f"{at}vm_size") or "",
        most=_whole(resource.get(f"{at}{'max_count' if scaled else 'node_count'}")),
        taints=frozenset(_azure_taint(each) for each in resource.get(f"{at}node_taints") or ()),
        tier=(resource.get(f"{at}node_labels") or {}).get(_TIER),
        spot=spot,
    )


def _azure_taint(text: str) -> tuple[str, str]:
    """ "nvidia.com/gpu=present:NoSchedule" as key and effect."""
    pair, _, effect = text.rpartition(":")
    return pair.partition("=")[0], effect


def _google_most(pool: Resource) -> int | None:
    zones = len(pool.get("node_locations") or ()) or 1
    if (total := _whole(pool.get("autoscaling.total_max_node_count"))) is not None:
        return total
    if (each := _whole(pool.get("autoscaling.max_node_count"))) is not None:
        return each * zones
    if blocks(pool.get("autoscaling")):
        return None
    fixed = _whole(pool.get("node_count"))
    return None if fixed is None else fixed * zones


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)
