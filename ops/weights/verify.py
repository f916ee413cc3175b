"""Whether a folder holds what its manifest says, file by file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ops.weights.manifest import Entry, Manifest, digest, unheard

_HASHERS = 4


def faults(
    folder: Path,
    manifest: Manifest,
    *,
    quick: bool = False,
    on_bytes: Callable[[int], None] = unheard,
) -> Mapping[str, str]:
    """What is wrong, in words by file name; empty where all is well.

    Args:
        quick: look at sizes only.

    Raises:
        Problem: a file cannot be read.
    """

    def look(entry: Entry) -> str | None:
        file = folder / entry.name
        if not file.is_file():
            return f"{entry.name} is missing"
        found = file.stat().st_size
        if found != entry.bytes:
            return f"{entry.name} has {found} bytes instead of {entry.bytes}"
        if not quick and digest(file, on_bytes) != entry.sha256:
            return f"{entry.name} does not match its checksum"
        return None

    with ThreadPoolExecutor(_HASHERS, "hash") as pool:
        looked = pool.map(look, manifest.files)
        return {
            entry.name: fault
            for entry, fault in zip(manifest.files, looked, strict=True)
            if fault is not None
        }
