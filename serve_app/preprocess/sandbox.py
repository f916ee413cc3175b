"""What a worker gives up before it looks at anybody's bytes. Standard library only; Linux.

Its memory is limited by address space, beyond what the worker holds when it is ready, and a limit
that is met raises MemoryError. Time is the parent's to watch.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from serve_app.preprocess.seccomp import SeccompError, confine

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
# More than are open; nothing can be opened anyway.
_MOST_DESCRIPTORS = 16
_NICENESS = 10


@dataclass(frozen=True, slots=True)
class Confinement:
    """Attributes:
    memory_bytes: of address space, to be had once the worker is ready.
    parent: process id of who started it, and whose end ends it.
    filter_required: whether a kernel that takes no filter of system calls is an error.
    threads: whether it may start threads, as some decoders insist on.
    """

    memory_bytes: int
    parent: int
    filter_required: bool
    threads: bool = False


def enter(confinement: Confinement) -> bool:
    """For the rest of this process' life; call when everything is imported.

    Returns:
        whether the kernel filters its system calls.

    Raises:
        OSError: something could not be given up.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != confinement.parent:
        raise ProcessLookupError("the parent was gone before the worker was ready")
    _be_modest()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_DESCRIPTORS, _MOST_DESCRIPTORS))
    if not confinement.threads:
        # It counts threads as processes.
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    limit = _address_space() + confinement.memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    try:
        confine(threads=confinement.threads)
    except SeccompError:
        if confinement.filter_required:
            raise
        return False
    return True


def _be_modest() -> None:
    """Text requests go first, and where memory ends, a worker goes first."""
    os.nice(_NICENESS)
    with suppress(OSError):
        # A session of its own is a group of its own where Linux shares cores out by session, and
        # niceness counts within a group only.
        Path("/proc/self/autogroup").write_text(str(_NICENESS))
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl {option}: {os.strerror(code)}")
