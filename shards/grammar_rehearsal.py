"""Compiles a caller's schema once in a process that may be killed, before anybody depends on it.

A schema within all limits can still take xgrammar minutes or gigabytes, and C++ cannot be
interrupted. So a process of its own goes first, niced, with bounded memory and CPU time, which is
the schema's doing however busy the machine is: what it survives, the rank compiles again (which
costs the same, off the GIL); what it does not is refused. The timer runs in that process, so a
compilation ends even when its rank has died.

    python -m shards.grammar_rehearsal FD      at the other end of the socket FD
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from multiprocessing.connection import Connection

from shards.detokenizer import Vocabulary
from shards.errors import QueueFullError
from shards.grammar_recipe import Kitchen, Recipe

# It imports torch, by way of xgrammar.
_START_S = 60.0
_FAREWELL_S = 5.0
_NICENESS = 10
# A niced process gets a part of its cores only; beyond this many times the bound nobody waits.
_WALL_FACTOR = 4
_OUT_OF_MEMORY = 3
# Where C++ meets no memory on a thread of its own, it aborts; where the stack ends, it faults.
_MEMORY_CODES = (_OUT_OF_MEMORY, -signal.SIGABRT, -signal.SIGSEGV)
# What C++ makes of an allocation, and of a thread's stack, that there is no room for.
_NO_MEMORY = ("bad_alloc", "Resource temporarily unavailable")


class TooComplexError(Exception):
    """The recipe was not compiled within its bounds; says which."""


class Rehearsal:
    """Starts its process when first needed, and again after it was killed.

    Args:
        timeout_s: of CPU time, for one recipe.
        memory_bytes: that the process may take beyond what it has once it is ready.
    """

    def __init__(
        self, vocabulary: Vocabulary, *, threads: int, timeout_s: float, memory_bytes: int
    ) -> None:
        self._vocabulary = vocabulary
        self._threads = threads
        self._timeout_s = timeout_s
        self._memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None

    def survive(self, recipe: Recipe) -> int:
        """Compile; how many bytes the grammar takes. By one thread at a time.

        Raises:
            TooComplexError: out of CPU time or memory.
            ValueError: xgrammar refuses it, in its words.
            QueueFullError: through no fault of the recipe; it may succeed later.
        """
        channel = self._sent(recipe)
        try:
            answer = channel.recv() if channel.poll(_WALL_FACTOR * self._timeout_s) else None
        except (EOFError, OSError):
            raise self._cause_of_death() from None
        match answer:
            case int(size):
                return size
            case str(words):
                raise ValueError(words)
            case _:
                self.close()
                raise QueueFullError("the machine is too busy to compile a schema")

    def close(self) -> None:
        """Kill the process, if there is one."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._channel = None

    def _sent(self, recipe: Recipe) -> Connection:
        channel = self._start() if self._channel is None else self._channel
        try:
            channel.send((recipe, self._timeout_s))
        except OSError:
            # It died while it had nothing to do.
            self.close()
            channel = self._start()
            channel.send((recipe, self._timeout_s))
        return channel

    def _cause_of_death(self) -> TooComplexError | QueueFullError:
        assert self._process is not None
        try:
            code = self._process.wait(_FAREWELL_S)
        except subprocess.TimeoutExpired:
            code = None
        self.close()
        if code == -signal.SIGPROF:
            return TooComplexError(f"takes more than {self._timeout_s:g} s to compile")
        if code in _MEMORY_CODES:
            return TooComplexError("takes too much memory to compile")
        return QueueFullError("the process that compiles schemas was ended")

    def _start(self) -> Connection:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # xgrammar warns in words that hold the caller's schema.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "CUDA_VISIBLE_DEVICES": "",
                    "OMP_NUM_THREADS": "1",
                },
            )
        self._channel = channel = Connection(ours.detach())
        try:
            channel.send((self._vocabulary, self._threads, self._memory_bytes))
            if channel.poll(_START_S):
                channel.recv()
                return channel
        except (EOFError, OSError):
            pass
        self.close()
        raise RuntimeError("the process that compiles schemas does not start")


def main(descriptor: int) -> None:
    """Answer recipes with a size or a refusal, until the other end is gone."""
    os.nice(_NICENESS)
    channel = Connection(descriptor)
    vocabulary, threads, memory_bytes = channel.recv()
    kitchen = Kitchen(vocabulary, threads)
    _bound_memory(memory_bytes)
    channel.send(None)
    while True:
        try:
            recipe, timeout_s = channel.recv()
        except EOFError:
            return
        # CPU time of all threads; the signal that ends it is left to the kernel.
        signal.setitimer(signal.ITIMER_PROF, timeout_s)
        try:
            answer: int | str = kitchen.compiled(recipe).memory_size_bytes
        except Exception as error:  # whatever xgrammar makes of a caller's schema
            answer = str(error)
            if isinstance(error, MemoryError) or any(words in answer for words in _NO_MEMORY):
                sys.exit(_OUT_OF_MEMORY)
        signal.setitimer(signal.ITIMER_PROF, 0)
        channel.send(answer)


def _bound_memory(more: int) -> None:
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[0])
    limit = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main(int(sys.argv[1]))
