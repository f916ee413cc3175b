"""`pixtral doctor`: what this machine has and lacks, each with what to do about it."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ops import host
from ops.edge import Endpoints, health
from ops.finding import Finding
from ops.gpus import examine_gpus
from ops.memory import GIB, available_bytes, host_need, size
from ops.preflight import (
    check_accounts,
    check_memory,
    check_model,
    check_ports,
    check_ranks,
    named_ports,
)
from ops.problem import Problem
from serve_app.config import Config, ConfigError
from serve_app.errors import ApiError
from shards.config import ModelConfig

_DISK_BYTES = 2 * GIB  # Ray's session folder and logs
_RAY_SHARED_MEMORY = Path("/dev/shm")


def examine(config: Config, *, temp: Path, running: bool) -> Iterator[Finding]:
    """Every finding, cheapest first; ``running``: our own system holds the ports."""
    yield python()
    yield torch_build(config)
    yield package("ray", "2.60")
    yield from examine_gpus(config, running=running)
    many = not config.accounting.single_gateway
    yield host.limits(many=many)
    yield host.cgroup()
    yield host.local_clock(many=many)
    yield shared_memory(config)
    yield disk(temp)
    yield ports(config, running)
    kept = accounts(config)
    yield kept
    if kept.ok and many:
        yield skew(config)
    try:
        model = check_model(config.model.path)
    except Problem as problem:
        yield Finding("model", str(config.model.path), str(problem))
        return
    yield Finding("model", f"{config.model.name} in {config.model.path}")
    yield host.disk_speed(config.model.path)
    cut = f"{config.decoder.tensor_parallel} cut it evenly"
    ranks = _checked("ranks", cut, check_ranks, config, model)
    yield ranks
    if ranks.ok and not running:
        yield memory(config, model)


def python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    return Finding(
        "python", found, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer"
    )


def torch_build(config: Config) -> Finding:
    """The build must match the device: a CPU build serves no GPU."""
    try:
        import torch
    except ImportError as error:
        return Finding("torch", f"does not import ({error})", "pip install -e '.[cpu]'")
    cuda = torch.version.cuda
    found = f"{torch.__version__}, " + (f"CUDA {cuda}" if cuda else "CPU build")
    wants_gpu = "cuda" in (config.decoder.device, config.vision.device)
    if wants_gpu and not cuda:
        return Finding("torch", found, "the config says device: cuda; install a CUDA build")
    if wants_gpu and not torch.cuda.is_available():
        return Finding("torch", f"{found}, no usable GPU", "check the driver with nvidia-smi")
    return Finding("torch", found)


def package(name: str, wanted: str) -> Finding:
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "not installed", "pip install -c constraints.txt -e .")
    advice = "" if found.startswith(wanted) else f"this release is made for {name} {wanted}"
    return Finding(name, found, advice)


def shared_memory(config: Config, folder: Path = _RAY_SHARED_MEMORY) -> Finding:
    """Ray falls back to a file on disk where the object store does not fit, and becomes slow."""
    need = config.ray.object_store_bytes
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("/dev/shm", str(error.strerror), f"mount a tmpfs at {folder}")
    advice = f"give it {size(need)} (in a container: --shm-size), or lower ray.object_store_bytes"
    return Finding("/dev/shm", f"{size(free)} free", advice if free < need else "")


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    advice = f"free {size(_DISK_BYTES)} in {folder}: Ray keeps its logs there"
    return Finding("disk", f"{size(free)} free in {folder}", advice if free < _DISK_BYTES else "")


def ports(config: Config, running: bool) -> Finding:
    numbers = ", ".join(map(str, named_ports(config).values()))
    if running:
        seen = health(Endpoints.of(config))
        advice = "" if seen.ready else f"not ready: {'; '.join(seen.reasons)}"
        return Finding("ports", f"{numbers} in use by the running system", advice)
    return _checked("ports", f"{numbers} are free", check_ports, config)


def accounts(config: Config) -> Finding:
    embedded = config.accounting.single_gateway
    found = "kept in a file, for one gateway" if embedded else "PostgreSQL answers"
    return _checked("accounts", found, check_accounts, config)


def skew(config: Config) -> Finding:
    """Our clock beside the database's."""
    # Here, as it imports what would slow down every other command.
    from serve_app.accounting.office import database_time

    before = time.time()
    try:
        theirs = database_time(config)
    except (ApiError, ConfigError) as error:
        return Finding("skew", str(error), "see accounts")
    return host.clock_skew(theirs, before, time.time())


def memory(config: Config, model: ModelConfig) -> Finding:
    need, available = host_need(config, model).total, available_bytes()
    found = f"about {size(need)} needed, {size(available)} available"
    return _checked("memory", found, check_memory, config, model)


def _checked(subject: str, found: str, check: Callable[..., None], *args: Any) -> Finding:
    try:
        check(*args)
    except Problem as problem:
        return Finding(subject, "", str(problem))
    return Finding(subject, found)
