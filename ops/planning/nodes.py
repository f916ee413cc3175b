"""How many machines each tier takes, at the least and at the most replicas of the config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ops.deploy.sizing import GATEWAY_CPUS, group_cpus
from ops.planning.fit import vision_shares
from ops.planning.machines import MACHINES, Cloud, Machine
from ops.problem import Problem
from serve_app.config import Config
from serve_app.scaling import Bounds

Tier = Literal["head", "gateway", "preprocess", "vision", "decoder"]
TIERS: tuple[Tier, ...] = get_args(Tier)
# Kubernetes, its agents and the cloud's keep the rest (as ops/deploy/sizing.py has it).
_CPU_SHARE = 0.85
# What terraform/environments start with, where nothing else is said; vision's is for a config that
# gives it GPUs of its own.
_USUAL: Mapping[Cloud, Mapping[Tier, str]] = {
    "gcp": {
        "head": "n2-standard-8",
        "gateway": "n2-standard-8",
        "preprocess": "n2-standard-16",
        "vision": "g2-standard-8",
        "decoder": "a2-ultragpu-4g",
    },
    "aws": {
        "head": "m7i.2xlarge",
        "gateway": "m7i.xlarge",
        "preprocess": "m7i.4xlarge",
        "vision": "g6.2xlarge",
        "decoder": "p4de.24xlarge",
    },
    "azure": {
        "head": "Standard_D8s_v5",
        "gateway": "Standard_D8s_v5",
        "preprocess": "Standard_D16s_v5",
        "vision": "Standard_NV36ads_A10_v5",
        "decoder": "Standard_ND96amsr_A100_v4",
    },
}


@dataclass(frozen=True, slots=True)
class Pool:
    """A tier's machines. ``per_node`` replicas (groups, for the decoder) share one."""

    tier: Tier
    machine: Machine
    per_node: int
    least: int
    most: int


def chosen(cloud: Cloud, asked: Mapping[str, str]) -> dict[Tier, Machine]:
    """The machine of each tier, the cloud's usual one unless asked for otherwise.

    Raises:
        Problem: no such tier or machine, or one of another cloud.
    """
    names = dict(_USUAL[cloud])
    for tier, name in asked.items():
        if tier not in TIERS:
            raise Problem(f"--machine {tier}={name}: the tiers are {', '.join(TIERS)}")
        machine = MACHINES.get(name)
        if machine is None or machine.cloud != cloud:
            ours = [each.name for each in MACHINES.values() if each.cloud == cloud]
            raise Problem(f"--machine {tier}={name}: known on {cloud} are {', '.join(ours)}")
        names[tier] = name
    return {tier: MACHINES[name] for tier, name in names.items()}


def pools(config: Config, machines: Mapping[Tier, Machine]) -> tuple[Pool, ...]:
    """In the order of a request; vision is left out where it shares the decoder's GPUs.

    Raises:
        Problem: not even one replica finds room on its machine.
    """
    vision, preprocess = config.vision, config.preprocess
    by_cpu = _usable(machines["vision"]) / vision.num_cpus
    encoders = min(by_cpu, machines["vision"].gpus / vision.num_gpus if vision.num_gpus else by_cpu)
    found = [
        Pool("head", machines["head"], 1, 1, 1),
        _pool(
            "gateway",
            machines,
            _usable(machines["gateway"]) / GATEWAY_CPUS,
            config.gateway.autoscaling,
        ),
        _pool(
            "preprocess",
            machines,
            _usable(machines["preprocess"]) / preprocess.num_cpus,
            preprocess.autoscaling,
        ),
        _pool(
            "decoder", machines, _groups(config, machines["decoder"]), config.decoder.autoscaling
        ),
    ]
    if not vision_shares(config):
        found.insert(3, _pool("vision", machines, encoders, vision.autoscaling))
    return tuple(found)


def _pool(tier: Tier, machines: Mapping[Tier, Machine], fitting: float, scaling: Bounds) -> Pool:
    per_node = math.floor(fitting + 1e-9)
    machine = machines[tier]
    if per_node < 1:
        raise Problem(f"{tier}: not one replica fits a {machine.name} ({machine.vcpus} vCPUs)")
    least, most = (
        math.ceil(count / per_node) for count in (scaling.min_replicas, scaling.max_replicas)
    )
    return Pool(tier, machine, per_node, least, most)


def _groups(config: Config, machine: Machine) -> int:
    ranks = config.decoder.tensor_parallel
    if machine.gpus < ranks:
        raise Problem(
            f"decoder: a group needs {ranks} GPUs, and a {machine.name} has {machine.gpus}"
        )
    return min(machine.gpus // ranks, math.floor(_usable(machine) / group_cpus(config)))


def _usable(machine: Machine) -> float:
    return machine.vcpus * _CPU_SHARE
