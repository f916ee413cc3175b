"""What a config needs of this machine's memory, and what there is.

An estimate, made before anything starts, so that a model that cannot fit is refused in one line
instead of being killed half-way through loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import psutil

from serve_app.config import Config, value_bytes
from shards.config import ModelConfig
from shards.plan import rank_parameters

GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup")
# Resident sizes of the `local` profile on Linux, rounded up: a replica without
# torch, a process with it, and Ray's head with Serve's controller and proxy.
_PROCESS_BYTES = 200 * 2**20
_TORCH_PROCESS_BYTES = 400 * 2**20
_RAY_BYTES = 1000 * 2**20


def size(count: int) -> str:
    """Bytes as people read them.

    >>> size(67_108_864), size(61_572_651_155)
    ('64 MiB', '57.3 GiB')
    """
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of host memory, by what they are for."""

    weights: int
    kv_cache: int
    object_store: int
    grammars: int
    processes: int

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.object_store + self.grammars + self.processes


def host_need(config: Config, model: ModelConfig) -> Need:
    """What the smallest number of replicas takes in host memory; weights on a GPU take none of it.

    Raises:
        PlanError: the model cannot be cut over that many ranks.
    """
    ranks, groups = config.decoder.tensor_parallel, config.decoder.autoscaling.min_replicas
    encoders = config.vision.autoscaling.min_replicas
    preparers = config.preprocess.autoscaling.min_replicas
    gateways = config.gateway.autoscaling.min_replicas
    share = rank_parameters(model, ranks)
    weights = kv_cache = 0
    if config.decoder.device == "cpu":
        width = value_bytes(config.decoder.dtype, config.decoder.device)
        weights += groups * ranks * (share.decoder + share.projector) * width
        kv_cache += groups * ranks * config.decoder.kv_cache_bytes
    if config.vision.device == "cpu":
        weights += encoders * share.vision * value_bytes(config.vision.dtype, config.vision.device)
    costs = config.decoder.grammar
    return Need(
        weights=weights,
        kv_cache=kv_cache,
        object_store=config.ray.object_store_bytes,
        # A schema is compiled in a process of its own and then by rank 0, and either may keep what
        # it took.
        grammars=groups * (2 * costs.compile_bytes + costs.cache_bytes),
        processes=_RAY_BYTES
        + (gateways + preparers + groups) * _PROCESS_BYTES
        + (groups * (ranks + 1) + encoders) * _TORCH_PROCESS_BYTES
        + encoders * config.vision_features_bytes
        + groups * config.decoder.features_bytes,
    )


def available_bytes(cgroup: Path = _CGROUP) -> int:
    """Memory that can still be taken: the machine's, or the container's where that is less."""
    machine = psutil.virtual_memory().available
    try:
        limit = int((cgroup / "memory.max").read_text())  # "max" where there is no limit
        used = int((cgroup / "memory.current").read_text())
        cached = _stat(cgroup / "memory.stat", "inactive_file")
    except (OSError, ValueError):
        return machine
    return min(machine, max(0, limit - used + cached))


def _stat(file: Path, key: str) -> int:
    """A counter of memory.stat; the page cache in it is given back under pressure."""
    for line in file.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return int(value)
    return 0
