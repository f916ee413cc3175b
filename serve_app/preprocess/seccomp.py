"""A filter of system calls that leaves a process nothing but its memory, its clock and what it has
open. Standard library only; Linux on x86-64 and AArch64.

Everything that is not listed fails with EPERM: a decoder that is taken over can open no file, make
no socket, start no process, look into no other one, and make no page executable. The filter cannot
be taken off again.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

# name -> its number on x86-64 and on AArch64; None where it is not.
_ALLOWED: dict[str, tuple[int | None, int]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "sched_yield": (24, 124),
    "nanosleep": (35, 101),
    "getpid": (39, 172),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "sigaltstack": (131, 132),
    "gettid": (186, 178),
    "futex": (202, 98),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "getrandom": (318, 278),
    "rseq": (334, 293),
}
# Allowed unless their third argument asks for executable pages.
_MAPPING: dict[str, tuple[int, int]] = {"mmap": (9, 222), "mprotect": (10, 226)}
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# With threads; a new process is none of them.
_THREADS: dict[str, tuple[int, int]] = {"set_robust_list": (273, 99)}
_CLONE = (56, 220)
# Its flags lie in memory, where no filter looks; without it, C libraries take ``clone``.
_CLONE3 = 435
_CLONE_THREAD = 0x10000
# x86-64 counts a second set of calls, of 32-bit pointers, from here.
_X32 = 0x40000000
_PROT_EXEC = 4

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_KILL, _ALLOW, _REFUSE = 0x80000000, 0x7FFF0000, 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS
# Offsets in struct seccomp_data: call number, architecture, low halves of two arguments.
_NUMBER, _ARCHITECTURE, _FIRST, _THIRD = 0, 4, 16, 32
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


class SeccompError(OSError):
    """This kernel, or this processor, has no such filter for us."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def confine(*, threads: bool) -> None:
    """From now on, for this thread and those it may start. Needs ``PR_SET_NO_NEW_PRIVS``.

    Args:
        threads: whether it may start any.

    Raises:
        SeccompError: it is not in force.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise SeccompError(f"no filter of system calls is known for {machine}")
    code = b"".join(_program(*_ARCHITECTURES[machine], threads=threads))
    held = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        raise SeccompError(f"the kernel took no filter (error {ctypes.get_errno()})")


def _program(column: int, architecture: int, *, threads: bool) -> list[bytes]:
    known = {**_ALLOWED, **(_THREADS if threads else {})}
    allowed = sorted(number for each in known.values() if (number := each[column]) is not None)
    mapping = sorted(numbers[column] for numbers in _MAPPING.values())
    return [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, architecture, then=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _X32, otherwise=1),
        _step(_RETURN, _REFUSE),
        *(step for number in allowed for step in _if_equal(number, _step(_RETURN, _ALLOW))),
        *(step for number in mapping for step in _if_bit(number, _THIRD, _PROT_EXEC, _REFUSE)),
        *(_if_bit(_CLONE[column], _FIRST, _CLONE_THREAD, _ALLOW) if threads else ()),
        *_if_equal(_CLONE3, _step(_RETURN, _UNKNOWN)),
        _step(_RETURN, _REFUSE),
    ]


def _if_equal(number: int, step: bytes) -> tuple[bytes, bytes]:
    return _step(_EQUAL, number, otherwise=1), step


def _if_bit(number: int, argument: int, bit: int, answer: int) -> tuple[bytes, ...]:
    """With the bit set in the argument ``answer`` holds, and without it the opposite."""
    return (
        _step(_EQUAL, number, otherwise=4),
        _step(_LOAD, argument),
        _step(_ANY_BIT, bit, otherwise=1),
        _step(_RETURN, answer),
        _step(_RETURN, _ALLOW if answer == _REFUSE else _REFUSE),
    )


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    """One struct sock_filter; jumps count the steps to leave out."""
    return struct.pack("=HBBI", code, then, otherwise, value)
