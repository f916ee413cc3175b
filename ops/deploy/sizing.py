"""How large each tier's pods are, and whether what the config asks for fits the platform's nodes.

One pod takes a whole node, or its part of one (``Pool.pods_per_node``): Ray, not Kubernetes, packs
replicas, and a node's fast disk, page cache and GPUs then have one user.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ops.deploy.platform import Platform, Pool, Tier
from ops.problem import Problem
from serve_app.config import Config
from serve_app.scaling import Bounds

GIB = 2**30
# What Kubernetes, its agents and the cloud's keep of a node: of memory a fifth of a small one and
# little of a large one, of CPUs a seventh. More than the clouds' own tables say, so that a pod
# never waits for a node that is a few bytes too small.
_CPU_SHARE = 0.85
_SMALL_NODE_RESERVE = 0.2
_RESERVE_BYTES, _LARGE_NODE_RESERVE = 4 * GIB, 0.05
# Ray's store lies in /dev/shm, whose pages count as the pod's memory; what is over is for Gloo,
# NCCL and what Ray keeps beside the store there.
OBJECT_STORE_SHARE = 0.3
SHM_BEYOND_STORE = 2 * GIB
_WORKING_BYTES = GIB
GATEWAY_CPUS = 0.5  # as serve_app/app.py books
REPLICA_CPUS = 0.5


@dataclass(frozen=True, slots=True)
class Size:
    """Of one pod.

    Attributes:
        cpu: requested and allowed, in cores.
        memory, object_store, shm: in bytes; ``shm`` lies within ``memory``.
        ray_cpus: what tiers may book.
        pods: least and most of them.
    """

    cpu: float
    memory: int
    gpus: int
    object_store: int
    shm: int
    ray_cpus: int
    pods: tuple[int, int]


def pod_size(config: Config, platform: Platform, tier: Tier) -> Size:
    """The pod of a tier's own worker group (or of the head).

    Raises:
        Problem: the node is too small for Ray.
    """
    pool = platform.pools[tier]
    share = pool.pods_per_node
    cpu = math.floor(pool.cpu * _CPU_SHARE / share * 10) / 10
    memory = _mebibytes(_usable(pool.memory_gib * GIB) / share)
    object_store = min(config.ray.object_store_bytes, _mebibytes(memory * OBJECT_STORE_SHARE))
    shm = object_store + SHM_BEYOND_STORE
    if shm + _WORKING_BYTES > memory:
        raise Problem(
            f"pools.{tier}: {pool.memory_gib:g} GiB shared by {share} pods leave {memory / GIB:.1f}"
            f" GiB for each, too little for Ray; {pool.machine_type} is too small"
        )
    return Size(
        cpu=cpu,
        memory=memory,
        gpus=pool.gpus_per_pod if _wants_gpus(config, platform, tier) else 0,
        object_store=object_store,
        shm=shm,
        ray_cpus=max(math.floor(cpu), 1),
        pods=(pool.min_nodes * share, pool.max_nodes * share),
    )


def check_fit(config: Config, platform: Platform) -> None:
    """Refuse a config whose replicas could never all be placed: they would stay pending, unseen.

    Raises:
        Problem: names the tier, what it asks for and what there is.
    """
    decoder, vision = config.decoder, config.vision
    if decoder.device == "cuda":
        _check_gpus("decoder", decoder.tensor_parallel, platform.pools["decoder"])
    if vision.device == "cuda":
        _check_gpus("vision", 1, platform.home("vision"))
    _check_replicas(
        "gateway",
        config.gateway.autoscaling,
        _by_cpu(config, platform, "gateway", GATEWAY_CPUS),
    )
    _check_replicas(
        "preprocess",
        config.preprocess.autoscaling,
        _by_cpu(config, platform, "preprocess", config.preprocess.num_cpus),
    )
    _check_replicas("decoder", decoder.autoscaling, _groups(config, platform))
    _check_replicas("vision", vision.autoscaling, _encoders(config, platform))


def group_cpus(config: Config) -> float:
    return REPLICA_CPUS + config.decoder.tensor_parallel * config.decoder.cpus_per_rank


def _groups(config: Config, platform: Platform) -> int:
    size = pod_size(config, platform, "decoder")
    fitting = math.floor(size.ray_cpus / group_cpus(config))
    if config.decoder.device == "cuda":
        fitting = min(fitting, size.gpus // config.decoder.tensor_parallel)
    return fitting * size.pods[1]


def _encoders(config: Config, platform: Platform) -> int:
    vision, decoder = config.vision, config.decoder
    if not platform.vision_shares:
        size = pod_size(config, platform, "vision")
        fitting = math.floor(size.ray_cpus / vision.num_cpus)
        if vision.num_gpus:
            fitting = min(fitting, math.floor(size.gpus / vision.num_gpus))
        return fitting * size.pods[1]
    size = pod_size(config, platform, "decoder")
    groups = min(math.ceil(decoder.autoscaling.max_replicas / max(size.pods[1], 1)), size.ray_cpus)
    fitting = math.floor((size.ray_cpus - groups * group_cpus(config)) / vision.num_cpus)
    if vision.num_gpus:
        ranks = groups * decoder.tensor_parallel
        # What a rank leaves of its GPU, and GPUs that no rank has.
        beside = math.floor((1 - decoder.gpus_per_rank) / vision.num_gpus + 1e-9)
        alone = math.floor(1 / vision.num_gpus + 1e-9)
        fitting = min(fitting, ranks * beside + (size.gpus - ranks) * alone)
    return fitting * size.pods[1]


def _by_cpu(config: Config, platform: Platform, tier: Tier, cpus: float) -> int:
    size = pod_size(config, platform, tier)
    return math.floor(size.ray_cpus / cpus) * size.pods[1]


def _check_gpus(tier: Tier, wanted: int, pool: Pool) -> None:
    if pool.gpus_per_pod < wanted:
        raise Problem(
            f"{tier}: a replica needs {wanted} GPUs, and a pod on the platform's"
            f" {pool.machine_type} has {pool.gpus_per_pod}"
        )


def _check_replicas(tier: Tier, wanted: Bounds, places: int) -> None:
    if wanted.max_replicas > places:
        raise Problem(
            f"{tier}.autoscaling.max_replicas is {wanted.max_replicas}, and the platform's nodes"
            f" hold {places}; lower it or raise the pool's max_nodes"
        )


def _wants_gpus(config: Config, platform: Platform, tier: Tier) -> bool:
    shared = platform.vision_shares and config.vision.device == "cuda"
    return (tier == "decoder" and (config.decoder.device == "cuda" or shared)) or (
        tier == "vision" and config.vision.device == "cuda"
    )


def _usable(memory: float) -> float:
    return memory - min(memory * _SMALL_NODE_RESERVE, _RESERVE_BYTES + memory * _LARGE_NODE_RESERVE)


def _mebibytes(value: float) -> int:
    """Rounded down, as Kubernetes counts."""
    return int(value) // 2**20 * 2**20
