"""Platforms as the cloud modules describe them, and every profile rendered for each."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from ops.deploy.manifests import Manifest, manifests
from ops.deploy.platform import NEUTRAL, TIERS, Platform
from ops.planning.machines import MACHINES
from ops.problem import Problem
from ops.settings import PROFILES
from serve_app.config import Config, load_config

IMAGE = "registry.internal/pixtral-serve@sha256:" + "0" * 64
HOST = "pixtral.example.internal"
_GPU_TAINT = {"key": "nvidia.com/gpu", "operator": "Equal", "value": "present"}
# cloud -> CPU node, vision node (None: on the decoder's), decoder node, groups on one of these
_SHAPES: dict[str, tuple[str, str | None, str, int]] = {
    "gcp-dev": ("n2-standard-8", None, "a2-ultragpu-4g", 1),
    "gcp-prod": ("n2-standard-16", "g2-standard-16", "a2-ultragpu-4g", 1),
    "aws-dev": ("m7i.2xlarge", None, "p4de.24xlarge", 2),
    "aws-prod": ("m7i.4xlarge", "g6.4xlarge", "p4de.24xlarge", 2),
    "azure-dev": ("Standard_D8s_v5", None, "Standard_NC96ads_A100_v4", 1),
    "azure-prod": (
        *("Standard_D16s_v5", "Standard_NV36ads_A10_v5", "Standard_ND96amsr_A100_v4"),
        2,
    ),
}


def _pool(tier: str, machine_type: str, groups: int, nodes: tuple[int, int]) -> dict[str, Any]:
    machine = MACHINES[machine_type]
    return {
        "machine_type": machine_type,
        "gpus": machine.gpus,
        "min_nodes": nodes[0],
        "max_nodes": nodes[1],
        "groups_per_node": groups,
        "selector": {"pixtral.ai/tier": tier},
        "tolerations": [_GPU_TAINT | {"effect": "NoSchedule"}] if machine.gpus else [],
        "cpu": machine.vcpus,
        "memory_gib": machine.memory_gib,
        "local_ssd_path": "/mnt/disks/local/pixtral" if machine.gpus else None,
    }


def described(name: str) -> dict[str, Any]:
    """As ``terraform output -json platform`` prints it."""
    cloud = name.split("-")[0]
    cpu, vision, decoder, groups = _SHAPES[name]
    pools = {tier: _pool(tier, cpu, 0, (1, 4)) for tier in ("head", "gateway", "preprocess")}
    pools["decoder"] = _pool("decoder", decoder, groups, (1, 2))
    shared = pools["decoder"] | {"gpus": 0, "min_nodes": 0, "max_nodes": 0, "groups_per_node": 0}
    pools["vision"] = shared if vision is None else _pool("vision", vision, 0, (0, 2))
    return {
        "cloud": cloud,
        "cluster": f"pixtral-{name}",
        "location": "somewhere-1",
        "namespace": "pixtral",
        "weights_uri": {"gcp": "gs://b/p", "aws": "s3://b/p", "azure": "az://a/c/p"}[cloud],
        "service_accounts": {
            tier: {"name": f"pixtral-{tier}", "annotations": {"who": tier}, "labels": {}}
            for tier in TIERS
        },
        "pools": pools,
        "database": {
            "host": "10.1.2.3" if cloud == "gcp" else "ledger.internal",
            "port": 5432,
            "name": "ledger",
            "user": "gateway",
            "tls": "require",
        },
        "redis": {"host": "10.1.2.4", "port": 6379, "tls": True},
        "nccl_env": {"NCCL_DEBUG": "WARN"},
        "ingress": {
            "annotations": {"scheme": "internal"},
            "class": {"gcp": "gce-internal", "aws": "alb", "azure": "webapprouting"}[cloud],
            "source_cidrs": ["10.0.0.0/20"],
        },
        "gpu_nodes_max": 4,
    }


@cache
def platforms() -> dict[str, Platform]:
    return {"neutral": NEUTRAL} | {
        name: Platform.model_validate(described(name)) for name in _SHAPES
    }


@cache
def profiles() -> dict[str, Config]:
    """Those that ship; the one without a model gets a name for it."""
    configs = {}
    for file in sorted(PROFILES.glob("*.yaml")):
        unnamed = {"model.path": "pixtral-nano"} if file.stem == "local" else {}
        configs[file.stem] = load_config(file, unnamed)
    return configs


def rendered(profile: str, platform: str) -> list[Manifest]:
    return manifests(profiles()[profile], platforms()[platform], IMAGE, HOST)


def pairs() -> list[tuple[str, str]]:
    """Every profile with every platform that can hold it; GPU profiles refuse the neutral one."""
    return [
        (profile, platform)
        for profile in profiles()
        for platform in platforms()
        if profile == "local" or platform != "neutral"
    ]


def all_manifests() -> Iterator[Manifest]:
    for profile, platform in pairs():
        try:
            yield from rendered(profile, platform)
        except Problem as problem:
            raise AssertionError(f"{profile} on {platform}: {problem}") from problem
