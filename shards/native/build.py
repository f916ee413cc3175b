"""Compiles the kernels into a shared library and keeps it. Standard library only.

The sources include no header of Python or torch, so a build takes seconds. A library is named by
what it was made from: sources, compiler, flags, and the processor it was made for.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from shards.errors import KernelError

SOURCES = Path(__file__).parent
# -march=native: the library never leaves the machine. Rounding is as written: see vector.h.
FLAGS = (
    *("-std=c++17", "-O3", "-march=native", "-ffp-contract=off"),
    *("-fPIC", "-fopenmp", "-Wno-psabi"),
)
_COMPILERS = ("g++", "c++")
_TIMEOUT_S = 120.0


def library(cache: Path, sources: Path = SOURCES) -> Path:
    """The shared library in ``cache``, built there if need be; of several processes one builds.

    ``sources``: the folder whose C++ files it is made of.

    Raises:
        KernelError: no compiler, it failed, or the folder cannot be written.
    """
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise KernelError(f"no C++ compiler: none of {', '.join(_COMPILERS)} is on PATH")
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = cache / f"{sources.name}-{_digest(compiler, sources)}.so"
        with (cache / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _build(compiler, sources, path)
    except OSError as error:
        raise KernelError(f"cannot keep kernels in {cache}: {error}") from error
    return path


def cache_folder() -> Path:
    """The user's cache folder for this project.

    Raises:
        KernelError: the user has neither a home nor ``XDG_CACHE_HOME``.
    """
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise KernelError(f"no folder to keep kernels in: {error}") from error
    return Path(base) / "pixtral-serve" / "kernels"


def _digest(compiler: str, sources: Path) -> str:
    parts = [path.read_bytes() for path in sorted(sources.glob("*.[ch]*"))]
    parts += [" ".join(FLAGS).encode(), _run([compiler, "--version"]).encode(), _processor()]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()[:24]


def _processor() -> bytes:
    """What sets this processor's instructions apart, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_bytes().splitlines() if cpuinfo.exists() else []
    told = sorted(
        {line for line in lines if line.startswith((b"flags", b"Features", b"model name"))}
    )
    return b"\n".join([platform.machine().encode(), *told])


def _build(compiler: str, sources: Path, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        objects = []
        for source in sorted(sources.glob("*.cpp")):
            objects.append(str(folder / f"{source.stem}.o"))
            _run([compiler, *FLAGS, "-c", str(source), "-o", objects[-1]])
        # Linked without OpenMP: the runtime that torch brought is taken, so that its threads are
        # ours too; a second one would fight it for the cores.
        built = folder / path.name
        _run([compiler, "-shared", *objects, "-o", str(built)])
        built.replace(path)


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelError(f"{command[0]} did not run: {error}") from error
    if done.returncode != 0:
        raise KernelError(f"{' '.join(command)} failed: {done.stderr.strip()[:500]}")
    return done.stdout
