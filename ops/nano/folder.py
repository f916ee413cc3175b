"""The bundled model's folder: written once, whole or not at all, and checked when used again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ops.nano.checkpoint import WEIGHTS, write_description
from ops.nano.shape import TRAINED
from shards.errors import CheckpointError

MANIFEST = "nano.json"
CARD = "README.md"
# As it is committed; the tokenizer comes out of mistral-common's own package.
_COMMITTED = Path(__file__).parent / "model"


def ensure(folder: Path) -> Path:
    """The bundled model in ``folder``, written there if it is not; returns ``folder``.

    One of ours that is damaged or of another version is replaced. Several processes may call this
    at once: the first writes, the others wait.

    Raises:
        CheckpointError: ``folder`` holds something else.
    """
    if _is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.parent / f".{folder.name}.lock"):
        if not _is_whole(folder):
            _replace(folder)
    return folder


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Held by one process at a time, and let go by the system if it dies."""
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(folder: Path) -> None:
    old = folder.exists() and any(folder.iterdir())
    if old and not (folder / MANIFEST).is_file():
        raise CheckpointError(f"{folder} is not empty and is no bundled model: name another folder")
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh = Path(scratch, "fresh")
        _write(fresh)
        if old:
            folder.rename(Path(scratch, "old"))
        fresh.rename(folder)


def _write(folder: Path) -> None:
    write_description(folder, TRAINED)
    for name in (WEIGHTS, CARD):
        shutil.copyfile(_COMMITTED / name, folder / name)
    names = sorted(file.name for file in folder.iterdir())
    manifest = {"recipe": _recipe(), "sha256": _hashes(folder, names)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = manifest["sha256"]
        return bool(manifest["recipe"] == _recipe() and hashes == _hashes(folder, hashes))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _recipe() -> dict[str, Any]:
    """What the folder follows from, as JSON gives it back."""
    recipe: dict[str, Any] = json.loads(
        json.dumps({"model": asdict(TRAINED), "committed": _hashes(_COMMITTED, (WEIGHTS, CARD))})
    )
    return recipe


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    hashes = {}
    for name in names:
        with (folder / name).open("rb") as stream:
            hashes[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes
