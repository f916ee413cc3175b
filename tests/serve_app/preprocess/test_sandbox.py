"""What a process can still do once it is confined: each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MEMORY = 64 * 2**20

SCRIPT = """
import ctypes, mmap, os, resource, signal, socket, subprocess, sys, threading, time
from serve_app.preprocess.sandbox import Confinement, enter
libc = ctypes.CDLL(None, use_errno=True)
pair = socket.socketpair()
assert enter(Confinement({memory}, os.getppid(), filter_required=True, threads={threads}))
try:
    {attempt}
except (OSError, RuntimeError, MemoryError) as error:
    print(type(error).__name__, getattr(error, "errno", None))
else:
    print("nothing stopped it")
"""


def attempt(code: str, *, threads: bool = False) -> str:
    """What became of it."""
    body = textwrap.indent(textwrap.dedent(code).strip(), "    ").strip()
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(memory=MEMORY, attempt=body, threads=threads)],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "open('/tmp/written', 'w')",
        "os.open('/proc/self/environ', os.O_RDONLY)",
        "os.listdir('/')",
        "os.stat('/')",
        "os.unlink('/tmp/nothing-there')",
        "os.memfd_create('more')",
        "socket.socket()",
        "socket.socket(socket.AF_UNIX)",
        "pair[0].connect('/tmp/anywhere')",
        "pair[0].sendmsg([b'x'])",
        "os.fork()",
        "os.execv('/bin/true', ['true'])",
        "os.posix_spawn('/bin/true', ['true'], {})",
        "os.kill(os.getppid(), 0)",
        "os.setsid()",
        "os.pipe()",
        "os.dup(0)",
        "mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)",
    ],
)
def test_a_confined_process_may_not(code):
    assert attempt(code) == "PermissionError 1"


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("ptrace", "(16, os.getppid(), 0, 0)"),
        ("process_vm_readv", "(os.getppid(), None, 0, None, 0, 0)"),
        ("prctl", "(22, 0, 0, 0, 0)"),
        ("unshare", "(0x10000000,)"),
        ("mprotect", "(ctypes.pythonapi.PyObject_Str, 4096, 7)"),
    ],
)
def test_a_confined_process_may_not_call(call, arguments):
    """What Python has no function for; ``mprotect`` asks for executable pages."""
    code = f"""
    if libc.{call}{arguments} == -1:
        raise OSError(ctypes.get_errno(), "refused")
    """
    assert attempt(code) == "PermissionError 1"


def test_a_confined_process_starts_no_thread():
    assert attempt("threading.Thread(target=print).start()").startswith("RuntimeError")


def test_who_may_start_threads_may_start_no_process():
    code = """
    thread = threading.Thread(target=lambda: os.write(1, b"a thread "))
    thread.start()
    thread.join()
    """
    assert attempt(code, threads=True) == "a thread nothing stopped it"
    for code in ("os.fork()", "os.posix_spawn('/bin/true', ['true'], {})", "socket.socket()"):
        assert attempt(code, threads=True) == "PermissionError 1"


def test_a_confined_process_has_its_memory_and_no_more():
    assert attempt(f"bytearray({MEMORY // 2})") == "nothing stopped it"
    assert attempt(f"bytearray({2 * MEMORY})") == "MemoryError None"


def test_a_confined_process_goes_on_with_what_it_has():
    code = """
    os.write(pair[0].fileno(), b"here")
    assert os.read(pair[1].fileno(), 9) == b"here"
    assert time.time() and os.urandom(8) and os.getpid()
    sum(range(1000))
    """
    assert attempt(code) == "nothing stopped it"


def test_a_confined_process_writes_no_file_that_is_open(tmp_path):
    script = f"""
import os
from serve_app.preprocess.sandbox import Confinement, enter
file = os.open({str(tmp_path / "open")!r}, os.O_WRONLY | os.O_CREAT)
enter(Confinement({MEMORY}, os.getppid(), filter_required=True))
os.write(file, b"x")
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.returncode != 0
    assert (tmp_path / "open").read_bytes() == b""


def test_who_lost_the_parent_meanwhile_does_not_begin():
    script = f"""
from serve_app.preprocess.sandbox import Confinement, enter
enter(Confinement({MEMORY}, {os.getpid()} + 1, filter_required=True))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert "ProcessLookupError" in done.stderr
