"""`pixtral weights fetch`: a checkpoint from a bucket onto a node, once, whole and checked.

Beside the destination FOLDER lie, while it is made,

    .FOLDER.lock       held by whoever fetches; others on the node wait, then verify what is there
    .FOLDER.partial/   the files as they come; renamed to FOLDER when every checksum agreed

so that FOLDER is either not there or complete.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.memory import size
from ops.problem import Problem
from ops.weights import manifest
from ops.weights.manifest import Entry, Manifest, Part
from ops.weights.source import Source
from ops.weights.transfer import PIECE_BYTES, Transfer, pieces_file
from ops.weights.verify import faults

_MANIFEST_BYTES = 16 * 2**20
_HASHERS = 2


@dataclass(frozen=True, slots=True)
class Told:
    """Where progress goes: a line to read, the bytes to come, and each piece of them."""

    say: Callable[[str], None]
    expect: Callable[[str, int], None]
    on_bytes: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Fetched:
    """``fetched_bytes`` is 0 where everything was there already."""

    folder: Path
    manifest: Manifest
    fetched_bytes: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """Attributes:
    parallel: reads at a time; each holds ``piece_bytes`` of memory.
    manifest_sha256: what the source's manifest must have, for those who pin it.
    quick: trust the sizes of files that are there already instead of their checksums.
    """

    source: Source
    folder: Path
    told: Told
    part: Part = Part.ALL
    parallel: int = 16
    piece_bytes: int = PIECE_BYTES
    manifest_sha256: str | None = None
    quick: bool = False

    def run(self) -> Fetched:
        """Return once the folder is complete, whoever completed it.

        Raises:
            Problem: no manifest, too little disk, a source that fails, a checksum that does not
                agree. What was fetched and agreed is kept for the next try.
        """
        wanted = self._wanted()
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(f"{self.folder.parent} cannot be made: {error.strerror}") from error
        with _locked(self._beside("lock"), self.told.say):
            if self._there(wanted):
                return Fetched(self.folder, manifest.read(self.folder), 0)
            self._clear_strangers(wanted)
            missing = [each for each in wanted.files if not self._is_whole(each)]
            self._check_source(missing)
            self._check_space(missing)
            self._bring(missing)
            return Fetched(self.folder, self._publish(wanted), sum(e.bytes for e in missing))

    def _wanted(self) -> Manifest:
        where = f"{self.source.uri}/{manifest.NAME}"
        try:
            count = self.source.size(manifest.NAME)
        except Problem as problem:
            raise Problem(
                f"{problem}; `pixtral weights manifest DIR` makes it, to be uploaded with the files"
            ) from problem
        if count > _MANIFEST_BYTES:
            raise Problem(f"{where} is no manifest of weights: it has {size(count)}")
        text = bytes(self.source.read(manifest.NAME, 0, count))
        if self.manifest_sha256 is not None:
            found = manifest.digest_of(text)
            if found != self.manifest_sha256.lower():
                raise Problem(f"{where} has SHA-256 {found}, not {self.manifest_sha256}")
        return manifest.parse(text, where).of(self.part)

    def _there(self, wanted: Manifest) -> bool:
        """Whether the folder is complete already; what is damaged in it is taken out of sight."""
        if not self.folder.exists() or not any(self.folder.iterdir()):
            return False
        there = manifest.read(self.folder)
        if not _same(there, wanted):
            raise Problem(
                f"{self.folder} holds other weights than {self.source.uri} ({there.part} part,"
                f" {size(there.bytes)}): give another folder, or remove it"
            )
        self.told.say(f"{self.folder} is there; checking {size(there.bytes)}")
        self.told.expect("checking", there.bytes)
        bad = faults(self.folder, there, quick=self.quick, on_bytes=self.told.on_bytes)
        if not bad:
            return True
        self.told.say(f"{self.folder} is damaged ({'; '.join(bad.values())}); fetching that again")
        self._withdraw(bad)
        return False

    def _withdraw(self, bad: Iterable[str]) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)
        self.folder.rename(self._staging)
        for name in bad:
            (self._staging / name).unlink(missing_ok=True)

    def _clear_strangers(self, wanted: Manifest) -> None:
        """What an earlier try for other weights left; its files are told by their digests."""
        try:
            self._staging.mkdir(exist_ok=True)
        except OSError as error:
            raise Problem(f"{self._staging} cannot be made: {error.strerror}") from error
        ours = {self._whole(each) for each in wanted.files}
        for each in wanted.files:
            draft = self._draft(each)
            ours |= {draft, pieces_file(draft, self.piece_bytes)}
        for file in self._staging.iterdir():
            if file not in ours:
                file.unlink()

    def _check_source(self, missing: list[Entry]) -> None:
        """Before gigabytes are fetched: is everything there, as long as the manifest says?"""
        for each in missing:
            found = self.source.size(each.name)
            if found != each.bytes:
                raise Problem(
                    f"{self.source.uri}/{each.name} has {found} bytes, its manifest says"
                    f" {each.bytes}: upload both again"
                )

    def _check_space(self, missing: list[Entry]) -> None:
        need = sum(max(0, each.bytes - _taken(self._draft(each))) for each in missing)
        free = shutil.disk_usage(self.folder.parent).free
        if need > free:
            raise Problem(
                f"{self.folder.parent} has {size(free)} free and {size(need)} are still to come"
            )

    def _bring(self, missing: list[Entry]) -> None:
        """The next file comes while the last ones are hashed."""
        self.told.expect("fetching", sum(each.bytes for each in missing))
        with (
            ThreadPoolExecutor(self.parallel, "fetch") as pool,
            ThreadPoolExecutor(_HASHERS, "hash") as hashers,
        ):
            transfer = Transfer(self.source, pool, self.told.on_bytes, self.piece_bytes)
            checks: list[Future[None]] = []
            for each in missing:
                checks.append(self._bring_one(each, transfer, hashers))
                # A wrong file is told of now, not after all the others.
                _raise_first(check for check in checks if check.done())
            _raise_first(checks)

    def _bring_one(self, entry: Entry, transfer: Transfer, hashers: Executor) -> Future[None]:
        transfer.run(entry, self._draft(entry))
        return hashers.submit(self._accept, entry)

    def _accept(self, entry: Entry) -> None:
        draft = self._draft(entry)
        found = manifest.digest(draft)
        pieces_file(draft, self.piece_bytes).unlink(missing_ok=True)
        if found != entry.sha256:
            draft.unlink()
            raise Problem(
                f"{self.source.uri}/{entry.name} does not match its checksum (SHA-256 {found},"
                f" expected {entry.sha256}): it was removed here; run this again, and if it stays,"
                " upload the file again"
            )
        draft.rename(self._whole(entry))

    def _publish(self, wanted: Manifest) -> Manifest:
        written = _with_own_index(self._staging, wanted)
        (self._staging / manifest.NAME).write_text(written.text())
        _sync(self._staging / manifest.NAME)
        _sync(self._staging)
        try:
            self._staging.rename(self.folder)
        except OSError as error:
            raise Problem(
                f"{self.folder} cannot be put in place ({error.strerror}): name a folder that is"
                " not there yet, below a mount and not the mount itself"
            ) from error
        _sync(self.folder.parent)
        return written

    def _is_whole(self, entry: Entry) -> bool:
        """It got its name after its checksum agreed."""
        file = self._whole(entry)
        return file.is_file() and file.stat().st_size == entry.bytes

    @property
    def _staging(self) -> Path:
        return self._beside("partial")

    def _beside(self, what: str) -> Path:
        return self.folder.with_name(f".{self.folder.name}.{what}")

    def _whole(self, entry: Entry) -> Path:
        return self._staging / entry.name

    def _draft(self, entry: Entry) -> Path:
        return self._staging / f".{entry.name}.{entry.sha256[:16]}.part"


def _raise_first(checks: Iterable[Future[None]]) -> None:
    for check in checks:
        check.result()


def _with_own_index(folder: Path, wanted: Manifest) -> Manifest:
    """An index that names files of another part would be refused by the loader: it is cut too."""
    index = manifest.index_of(folder, wanted.layout)
    if wanted.part is Part.ALL or not index.is_file():
        return wanted
    there = {entry.name for entry in wanted.files}
    content = json.loads(index.read_text())
    content["weight_map"] = {
        tensor: file for tensor, file in content["weight_map"].items() if file in there
    }
    index.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    own = Entry(name=index.name, bytes=index.stat().st_size, sha256=manifest.digest(index))
    files = tuple(own if entry.name == own.name else entry for entry in wanted.files)
    return wanted.model_copy(update={"files": files})


def _same(there: Manifest, wanted: Manifest) -> bool:
    """But for a part's index, which is cut."""
    index = manifest.index_of(Path(), wanted.layout).name if wanted.part is not Part.ALL else ""

    def told(of: Manifest) -> set[tuple[str, str]]:
        return {(entry.name, entry.sha256) for entry in of.files if entry.name != index}

    return there.part is wanted.part and told(there) == told(wanted)


@contextmanager
def _locked(file: Path, say: Callable[[str], None]) -> Iterator[None]:
    """One process of this node at a time. A lock ends with its process, however that ends."""
    try:
        stream = file.open("a")
    except OSError as error:
        raise Problem(f"{file} cannot be made: {error.strerror}") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process on this machine fetches these weights; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _taken(file: Path) -> int:
    """Bytes of disk that an unfinished file has already."""
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
