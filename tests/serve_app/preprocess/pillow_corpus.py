"""Pillow's own test pictures, valid, odd and broken, out of its source distribution on PyPI."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import pytest

VERSION = "13.0.0"
SHA256 = "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510"
_FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pixtral-serve/tests"
# Fonts, palettes and texts lie among them; they are files that somebody may send, too.
_PICTURES = f"pillow-{VERSION}/Tests/images/"


@cache
def pillow_images() -> dict[str, bytes]:
    """Name → bytes, of every file; fetched once by pip and kept."""
    archive = _FOLDER / f"pillow-{VERSION}.tar.gz"
    _FOLDER.mkdir(parents=True, exist_ok=True)
    # Tests run in several processes: none may read what another has half written.
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _fetch()
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    with tarfile.open(archive) as files:
        return {
            member.name.removeprefix(_PICTURES): files.extractfile(member).read()  # type: ignore[union-attr]  # it is a file
            for member in files
            if member.isfile() and member.name.startswith(_PICTURES)
        }


def _fetch() -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "pillow"]
    done = subprocess.run(
        [*command, "-d", str(_FOLDER), f"pillow=={VERSION}"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"needs package pillow=={VERSION} as source: {done.stderr.strip()[-200:]}")
