"""Sleeping until another process changes a word of shared memory: Linux's futex, by ``ctypes``.

A futex's waiter and waker agree on 32 bits of memory. The kernel compares and goes to sleep in
one step, so a change between looking and sleeping is not missed. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from typing import Any

# The system call's number on x86-64; other processors order memory otherwise (see shared_memory).
_SYSCALL = 202
_WAIT, _WAKE = 0, 1
_EVERYBODY = 2**31 - 1
# Woken for nothing, changed already, interrupted, time over: the caller looks again in any case.
_LOOK_AGAIN = (errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT)


def supported() -> bool:
    """Whether this machine has what the ranks' shared memory relies on."""
    return (
        platform.machine() == "x86_64" and hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")
    )


class Futex:
    """Sleeps on and wakes sleepers of one aligned 32-bit word, across processes.

    Args:
        memory: a shared, writable buffer that outlives this object.
        offset: of the word, in bytes.
    """

    def __init__(self, memory: Any, offset: int) -> None:
        self._word = ctypes.c_int32.from_buffer(memory, offset)
        self._address = ctypes.byref(self._word)
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._syscall.restype = ctypes.c_long

    def wait(self, seen: int, timeout_s: float) -> None:
        """Sleep while the word is ``seen``; may return early for no reason."""
        timeout = _Timespec(int(timeout_s), int(timeout_s % 1 * 1e9))
        number, value = ctypes.c_long(_SYSCALL), ctypes.c_int32(seen)
        result = self._syscall(number, self._address, _WAIT, value, ctypes.byref(timeout))
        if result < 0 and ctypes.get_errno() not in _LOOK_AGAIN:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def wake(self) -> None:
        """Wake all who sleep on the word; about 1 µs where nobody does."""
        self._syscall(ctypes.c_long(_SYSCALL), self._address, _WAKE, _EVERYBODY)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))
