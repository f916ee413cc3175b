"""What this machine lets a process do: its disk's speed, limits, memory and clock."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ops.finding import Finding
from ops.memory import GIB, available_bytes, size

_READ_BYTES = 512 * 2**20
_READ_FOR_S = 2.0
_BLOCK_BYTES = 8 * 2**20
# A node that reads for longer than this is a rollout that nobody waits for.
_PATIENCE_S = 600.0
# Each worker of Ray and each client's connection takes some; the larger is Ray's own advice.
_OPEN_FILES, _OPEN_FILES_OF_MANY = 4096, 65_536
_SKEW_S = 1.0
_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_CGROUP = Path("/sys/fs/cgroup")


def disk_speed(folder: Path, clock: Callable[[], float] = time.monotonic) -> Finding:
    """How fast the weights come off their disk, past the page cache where the system allows it."""
    files = sorted(folder.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    if not files or not files[-1].stat().st_size:
        return Finding("weights", f"no weights to read in {folder}")
    whole = sum(file.stat().st_size for file in files)
    try:
        count, seconds, direct = _read(files[-1], clock)
    except OSError as error:
        return Finding("weights", f"{files[-1]}: {error.strerror}", "let this user read it")
    rate = count / max(seconds, 1e-9)
    takes = whole / rate
    how = "read directly" if direct else "through the page cache, so perhaps too good"
    found = f"{size(whole)} at {size(int(rate))}/s ({how}): {_duration(takes)}"
    advice = "put them on local NVMe (`pixtral weights fetch`)" if takes > _PATIENCE_S else ""
    return Finding("weights", found, advice)


def limits(*, many: bool) -> Finding:
    """``many``: this is a node of a cluster, not one machine with everything on it."""
    need = _OPEN_FILES_OF_MANY if many else _OPEN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    locked, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    found = f"{_count(soft)} open files (hard {_count(hard)}), {_bytes(locked)} locked"
    if hard != resource.RLIM_INFINITY and hard < need:
        return Finding("limits", found, f"allow {need} open files: ulimit -Hn, LimitNOFILE=")
    return Finding("limits", found)


def cgroup(folder: Path = _CGROUP) -> Finding:
    """The container's bound on memory, beyond which the kernel kills without a word."""
    try:
        text = (folder / "memory.max").read_text().strip()
    except OSError:
        return Finding("cgroup", "no memory bound of its own")
    if text == "max":
        return Finding("cgroup", "no memory bound")
    bound, left = int(text), available_bytes(folder)
    advice = ""
    if left < bound // 10:
        advice = "less than a tenth is left: the kernel will kill; raise the limit or stop others"
    return Finding("cgroup", f"{size(left)} of {size(bound)} left", advice)


def local_clock(*, many: bool) -> Finding:
    """Whether the kernel says that something keeps its clock right; ``many`` as in ``limits``."""
    state = clock_state()
    if state is None:
        return Finding("clock", "the kernel does not tell whether it is synchronised")
    if state == _TIME_ERROR and not many:
        return Finding("clock", "not synchronised by NTP, which one machine alone can live with")
    if state == _TIME_ERROR:
        return Finding(
            "clock",
            "not synchronised by NTP",
            "start chrony or systemd-timesyncd: months are closed and leases end by this clock",
        )
    return Finding("clock", "synchronised")


def clock_skew(database_s: float, before_s: float, after_s: float) -> Finding:
    """Args are Unix times: the database's, and ours right before and after it was asked."""
    skew = database_s - (before_s + after_s) / 2
    doubt = (after_s - before_s) / 2
    found = f"{skew:+.3f} s from the database's (give or take {doubt:.3f} s)"
    if abs(skew) - doubt > _SKEW_S:
        return Finding("skew", found, "synchronise both by NTP: leases end by their clocks")
    return Finding("skew", found)


def clock_state() -> int | None:
    """What adjtimex(2) returns, asked without changing anything; None where it may not be asked."""
    with suppress(OSError, AttributeError):
        # struct timex is 208 bytes on 64-bit Linux; modes 0 only reads.
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(256))
        return None if state < 0 else int(state)
    return None


def _read(file: Path, clock: Callable[[], float]) -> tuple[int, float, bool]:
    """Bytes read, seconds taken and whether the page cache was gone around."""
    direct = True
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_DIRECT)
    except OSError:
        direct = False
        descriptor = os.open(file, os.O_RDONLY)
    try:
        if not direct:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        # An anonymous map is aligned to pages, as direct reads want it.
        with mmap.mmap(-1, _BLOCK_BYTES) as block:
            started, count = clock(), 0
            while got := os.readv(descriptor, [block]):
                count += got
                if count >= _READ_BYTES or clock() - started > _READ_FOR_S:
                    break
            return count, clock() - started, direct
    finally:
        os.close(descriptor)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def _count(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit:,}"


def _bytes(limit: int) -> str:
    return "unlimited" if limit == resource.RLIM_INFINITY else f"{limit / GIB:.1f} GiB"
