"""One file in pieces read side by side: bounded memory, and what is there is never read twice.

Beside ``NAME.DIGEST.part`` lies ``….pieces``, which names each piece once its bytes are written:
whoever comes after a ``kill -9`` goes on from there. What a power cut leaves is caught by the
checksum.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from contextlib import contextmanager
from pathlib import Path

from ops.problem import Problem
from ops.weights.manifest import Entry
from ops.weights.source import Source

PIECE_BYTES = 16 * 2**20


class Transfer:
    """Brings files of one source.

    Args:
        pool: as many pieces are in memory as it has threads.
        on_bytes: told of every piece, those found from before too.
    """

    def __init__(
        self,
        source: Source,
        pool: Executor,
        on_bytes: Callable[[int], None],
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self._source = source
        self._pool = pool
        self._on_bytes = on_bytes
        self._piece_bytes = piece_bytes

    def run(self, entry: Entry, file: Path) -> None:
        """Fill ``file``; whether its content is right is for the checksum to say.

        Raises:
            Problem: the source failed, or the disk is full; the pieces written stay.
        """
        pieces = pieces_file(file, self._piece_bytes)
        written = _written(pieces) if file.exists() else set()
        try:
            with _opened(file) as target, _opened(pieces, os.O_APPEND | os.O_TRUNC) as journal:
                os.ftruncate(target, entry.bytes)
                os.write(journal, "".join(f"{piece}\n" for piece in written).encode())
                self._fill(entry, target, journal, written)
                os.fdatasync(target)
        except OSError as error:
            raise Problem(f"{file} cannot be written: {error.strerror}") from error

    def _fill(self, entry: Entry, target: int, journal: int, written: set[int]) -> None:
        stop = threading.Event()

        def bring(piece: int) -> None:
            if stop.is_set():
                return
            start = piece * self._piece_bytes
            length = min(self._piece_bytes, entry.bytes - start)
            if piece not in written:
                content = self._source.read(entry.name, start, length)
                _write(target, content, start)
                os.write(journal, f"{piece}\n".encode())
            self._on_bytes(length)

        count = -(-entry.bytes // self._piece_bytes)
        jobs = [self._pool.submit(bring, piece) for piece in range(count)]
        try:
            wait(jobs, return_when=FIRST_EXCEPTION)
        finally:
            # The files are closed after this, so nobody may be left writing.
            stop.set()
            wait(jobs)
        for job in jobs:
            job.result()


def pieces_file(file: Path, piece_bytes: int = PIECE_BYTES) -> Path:
    """Pieces of another size are counted in another file."""
    return file.with_name(f"{file.name}.{piece_bytes}.pieces")


def _written(pieces: Path) -> set[int]:
    try:
        lines = pieces.read_text().splitlines(keepends=True)
    except FileNotFoundError:
        return set()
    # A last line without its end was cut off, and its piece is read again.
    return {int(line) for line in lines if line.endswith("\n") and line.strip().isdigit()}


def _write(target: int, content: memoryview, start: int) -> None:
    done = 0
    while done < len(content):
        done += os.pwrite(target, content[done:], start + done)


@contextmanager
def _opened(file: Path, flags: int = 0) -> Iterator[int]:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | flags, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
