"""The GPUs of this machine, as nvidia-smi and torch tell of them. None is fine: most have none."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from ops.finding import Finding
from ops.memory import size
from serve_app.config import Config

_FIELDS = (
    "index",
    "name",
    "driver_version",
    "memory.total",
    "memory.used",
    "persistence_mode",
    "ecc.errors.uncorrected.volatile.total",
)
_QUERY = (f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits")
_MIB = 2**20
_TIMEOUT_S = 20.0
# A context of somebody's takes some hundred MiB; less is the driver's own.
_IDLE_BYTES = 1024 * _MIB


@dataclass(frozen=True, slots=True)
class Gpu:
    """``uncorrected``: ECC errors since the driver was loaded; None where the card counts none."""

    index: int
    name: str
    driver: str
    memory: int
    used: int
    persistent: bool
    uncorrected: int | None


def examine_gpus(config: Config, *, running: bool) -> tuple[Finding, ...]:
    """One finding without GPUs, else what they are and how they reach each other."""
    wants = "cuda" in (config.decoder.device, config.vision.device)
    command = shutil.which("nvidia-smi")
    if command is None:
        advice = "the config says device: cuda; install NVIDIA's driver" if wants else ""
        return (Finding("GPUs", "none here (there is no nvidia-smi)", advice),)
    try:
        said = subprocess.run(
            [command, *_QUERY], capture_output=True, text=True, check=True, timeout=_TIMEOUT_S
        ).stdout
        found = parse(said)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = getattr(error, "stderr", None) or error
        line = str(reason).strip().splitlines()[-1]
        return (Finding("GPUs", line, "run nvidia-smi and mend what it says; reload the driver"),)
    if not wants:
        return (Finding("GPUs", f"{_summary(found)}; the config uses none"),)
    return (judge(found, config, running=running), *_links(found))


def parse(said: str) -> list[Gpu]:
    """nvidia-smi's lines.

    Raises:
        ValueError: they are not what was asked for.
    """
    gpus = []
    for line in said.splitlines():
        index, name, driver, total, used, mode, errors = (part.strip() for part in line.split(","))
        gpus.append(
            Gpu(
                index=int(index),
                name=name,
                driver=driver,
                memory=int(total) * _MIB,
                used=int(used) * _MIB,
                persistent=mode == "Enabled",
                uncorrected=int(errors) if errors.isdigit() else None,
            )
        )
    return gpus


def judge(gpus: Sequence[Gpu], config: Config, *, running: bool) -> Finding:
    """Every trouble in one advice, the worst first. ``running``: their memory is in use by us."""
    need = config.decoder.tensor_parallel if config.decoder.device == "cuda" else 1
    troubles = [
        f"GPU {gpu.index} has {gpu.uncorrected} uncorrected ECC errors: take the node out, reset or"
        " replace the card"
        for gpu in gpus
        if gpu.uncorrected
    ]
    if len(gpus) < need:
        troubles.append(f"a group needs {need}: lower decoder.tensor_parallel or take another node")
    busy = [str(gpu.index) for gpu in gpus if gpu.used > _IDLE_BYTES]
    if busy and not running:
        troubles.append(f"somebody uses GPU {', '.join(busy)}: nvidia-smi names the process")
    if not all(gpu.persistent for gpu in gpus):
        troubles.append("turn persistence on, or each start waits for the driver: nvidia-smi -pm 1")
    if len({gpu.name for gpu in gpus}) > 1:
        troubles.append("a group needs equal GPUs: it runs at the pace of the slowest")
    return Finding("GPUs", _summary(gpus), "; ".join(troubles))


def links(count: int, closed: Sequence[tuple[int, int]], nccl: Sequence[int]) -> Finding:
    """``closed``: pairs that do not reach each other's memory."""
    version = ".".join(map(str, nccl))
    if not closed:
        return Finding("NCCL", f"{version}; all {count} GPUs reach each other's memory")
    pairs = ", ".join(f"{one}-{other}" for one, other in closed if one < other)
    return Finding(
        "NCCL",
        f"{version}; no peer access between GPUs {pairs}",
        "ranks would meet through host memory: check `nvidia-smi topo -m`, IOMMU and ACS settings,"
        " or keep a group to GPUs with NVLink",
    )


def _links(gpus: Sequence[Gpu]) -> tuple[Finding, ...]:
    """Nothing for one GPU, or where torch cannot use them, which its own finding tells."""
    try:
        import torch
    except ImportError:
        return ()
    cuda: Any = torch.cuda
    if len(gpus) < 2 or not cuda.is_available():
        return ()
    count = cuda.device_count()
    closed = [
        pair for pair in permutations(range(count), 2) if not cuda.can_device_access_peer(*pair)
    ]
    return (links(count, closed, cuda.nccl.version()),)


def _summary(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "none: nvidia-smi lists no GPU"
    first = gpus[0]
    return f"{len(gpus)} x {first.name}, {size(first.memory)} each, driver {first.driver}"
