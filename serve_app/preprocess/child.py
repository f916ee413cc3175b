"""The parent's side of one worker process: start it, give it a file, watch the clock, end it.

Used by one thread. The process inherits no descriptor but its socket and its two pieces of shared
memory, no environment, and dies with the thread that started it.
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import serve_app
from serve_app.preprocess import worker
from serve_app.preprocess.rules import DecodeRules
from serve_app.preprocess.sandbox import Confinement
from serve_app.preprocess.wire import (
    GO_ON,
    MESSAGE_BYTES,
    PATCH_BYTES,
    Cut,
    Done,
    Failed,
    Look,
    OneCut,
    Ready,
    Refused,
    Reply,
    Seen,
    Start,
    WireError,
    unpacked,
)
from serve_app.preprocess.wish import Sight
from shards.grid import Grid

# Imports on a busy machine; a worker takes a second on an idle one.
_START_TIMEOUT_S = 120.0
# Of its time, which a worker must have had a processor for if its file is to be blamed.
FAIR_SHARE = 0.25
_PATCH_VALUES = PATCH_BYTES // np.dtype(np.float32).itemsize

Patches = NDArray[np.float32]
Take = Callable[[Grid, Patches], None]


class WorkerLost(Exception):  # noqa: N818  (reads as what it is)
    """The process died, or said what makes no sense; it is ended."""


class TooSlow(WorkerLost):
    """Its time was up, and it had a processor for a good part of it."""


class Starved(WorkerLost):
    """Its time was up, and others had the processors: the file may not be at fault."""


class TooBig(WorkerLost):
    """It met its limit of memory."""


class FileRefused(Exception):  # noqa: N818
    """The worker is well and the file is at fault: ``message`` and ``code`` say how."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class WorkerProcess:
    """Ready for work when made.

    Args:
        max_file_bytes: of the largest file that it is ever given.
        kernels: the C++ library for pixels, if there is one.

    Raises:
        WorkerLost: it does not start here, or cannot be confined as asked.
    """

    def __init__(
        self,
        rules: DecodeRules,
        max_file_bytes: int,
        memory_bytes: int,
        *,
        filter_required: bool,
        kernels: Path | None = None,
    ) -> None:
        self.done = 0
        self._max_patches = rules.max_patches
        file, self._file = _shared("picture", max_file_bytes)
        patches, self._patches = _shared("patches", rules.max_patches * PATCH_BYTES)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        given = (theirs.fileno(), file, patches)
        try:
            self._process = subprocess.Popen(
                # Neither environment, user's packages, .pth files nor the current folder count.
                [sys.executable, "-ISB", worker.__file__, _module_path(), *map(str, given)],
                env={},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                close_fds=True,
                pass_fds=given,
                start_new_session=True,
            )
        finally:
            theirs.close()
            os.close(file)
            os.close(patches)
        confinement = Confinement(
            memory_bytes, os.getpid(), filter_required, threads="heif" in rules.formats
        )
        self._deadline = time.monotonic() + _START_TIMEOUT_S
        self._send(
            pickle.dumps(Start(rules, confinement, None if kernels is None else str(kernels)))
        )
        answer = self._receive()
        if not isinstance(answer, Ready):
            self.end()
            raise WorkerLost(f"a worker that decodes pictures does not start: {answer}")
        self.filtered = answer.filtered

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def look(self, data: bytes, task: Look, timeout_s: float) -> Sight:
        """What ``data`` shows by its headers.

        Raises:
            FileRefused, WorkerLost: no process is left after the latter.
        """
        self._give(data, task, timeout_s)
        answer = self._receive()
        if isinstance(answer, Seen):
            return answer.sight
        raise self._fault(answer)

    def cut(self, data: bytes, task: Cut, timeout_s: float, take: Take) -> None:
        """Each picture's grid and patches, in order, to ``take``, which must copy.

        The array, float32 [patches, 3 · 16 · 16], lies over memory that the next one is written to.

        Args:
            timeout_s: for each picture.

        Raises:
            FileRefused, WorkerLost: as above; some pictures may have been taken.
        """
        self._give(data, task, timeout_s)
        for _ in task.max_sides:
            answer = self._receive()
            if not isinstance(answer, OneCut):
                raise self._fault(answer)
            if answer.grid.patches > self._max_patches:
                raise self._fault(answer)
            count = answer.grid.patches * _PATCH_VALUES
            values = np.frombuffer(self._patches, np.float32, count)
            take(answer.grid, values.reshape(answer.grid.patches, _PATCH_VALUES))
            self._begin(timeout_s)
            self._send(GO_ON)
        answer = self._receive()
        if not isinstance(answer, Done):
            raise self._fault(answer)

    def end(self) -> None:
        """At once, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _give(self, data: bytes, task: Look | Cut, timeout_s: float) -> None:
        self.done += 1
        self._begin(timeout_s)
        self._file[: len(data)] = data
        self._send(pickle.dumps(task))

    def _send(self, message: bytes) -> None:
        try:
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            self._socket.send(message)
        except TimeoutError:
            raise self._late() from None
        except OSError as error:
            self.end()
            raise WorkerLost("a worker died") from error

    def _receive(self) -> Reply:
        try:
            self._socket.settimeout(max(0.001, self._deadline - time.monotonic()))
            message = self._socket.recv(MESSAGE_BYTES)
            if message:
                return unpacked(message)
        except TimeoutError:
            raise self._late() from None
        except (OSError, WireError) as error:
            self.end()
            raise WorkerLost("a worker died or made no sense") from error
        self.end()
        raise WorkerLost(f"a worker died ({self._process.returncode})")

    def _late(self) -> WorkerLost:
        used_s = self._cpu_s() - self._cpu_before_s
        self.end()
        return TooSlow() if used_s >= FAIR_SHARE * self._timeout_s else Starved()

    def _cpu_s(self) -> float:
        """Of the process, by its clock: what clock_getcpuclockid(3) makes of its id."""
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except OSError:
            return 0.0

    def _begin(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._cpu_before_s = self._cpu_s()
        self._deadline = time.monotonic() + timeout_s

    def _fault(self, answer: Reply) -> FileRefused | WorkerLost:
        if isinstance(answer, Refused):
            return FileRefused(answer.message, answer.code)
        self.end()
        if answer == Failed("memory"):
            return TooBig()
        return WorkerLost(f"a worker did not do its work: {answer}")


def _shared(name: str, size: int) -> tuple[int, mmap.mmap]:
    """Memory for two processes, by its descriptor, and ours. Nobody can cut it short under us."""
    descriptor = os.memfd_create(f"pixtral-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, size)
    seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor, mmap.mmap(descriptor, size)


def _module_path() -> str:
    """Where this process finds modules, and first of all this package: as JSON."""
    ours = str(Path(serve_app.__file__).parent.parent)
    return json.dumps([ours, *(entry for entry in sys.path if entry)])
