"""What rank 0 computed, noted on the node's own disk before anybody hears of it.

A group's journal is one run of bytes, cut into files (segments) that say where they begin:

    <group>.<offset of its first byte, 16 hex digits>.v2.journal
    record   payload length u32 | CRC-32 of the payload u32 | CRC-32 of these two u32 | payload
    payload  one entry per tally: id length, attempt, choice, six cumulative counts | id

What the release before this one wrote ends in ``.journal`` alone and lacks the last count; it is
still read. That release knows nothing of ``.v2.journal`` and leaves it to this one.

A step is one record and one ``write`` to a file opened for appending. When ``append`` returns,
the record is in the kernel's page cache and survives the process, ``kill -9`` included. It is not
synced: a host that loses power may lose the last seconds, as it loses the tokens that were on
their way. The writer holds a lock on its newest segment, which the kernel lets go of when the
process is dead; so a reader (journal_reader.py) can tell a record that is being written from one
that was torn, which no token ever followed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from shards.errors import GroupError
from shards.tally import Tally

SEGMENT_BYTES = 4 * 2**20
_HEADER = struct.Struct("<III")
_LENGTHS = struct.Struct("<II")
# By what a segment's name ends in; a group's are all of one format.
SUFFIX = ".v2.journal"
_ENTRIES = {SUFFIX: struct.Struct("<BHHIIIIII"), ".journal": struct.Struct("<BHHIIIII")}
FORMATS = tuple(_ENTRIES)


class JournalError(GroupError):
    """What was computed could not be noted down, so the group must not go on."""


class JournalWriter:
    """Rank 0's pen. Not thread-safe: the engine's thread alone uses it.

    After a failed write the journal may end in half a record: every later ``append`` raises.

    Args:
        folder: on a local disk; made if absent.
        group: unique for all time; its journal must not exist.

    Raises:
        JournalError: the folder cannot be written, or its disk could not even hold one segment.
    """

    def __init__(self, folder: Path, group: str, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._group = group
        self._segment_bytes = segment_bytes
        self._start = 0
        self._written = 0
        self._file: int | None = None
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < segment_bytes:
                raise OSError(errno.ENOSPC, f"less than {segment_bytes} bytes are free")
            self._file = self._create()
        except OSError as error:
            raise self._failed(error) from error

    def append(self, tallies: Sequence[Tally]) -> None:
        """Note the tallies of one step; they are safe from the process's death on return.

        Raises:
            JournalError: they are not.
        """
        if not tallies:
            return
        if self._file is None:
            raise JournalError(f"the journal of group {self._group} is closed")
        record = encode(tallies)
        try:
            if self._written and self._written + len(record) > self._segment_bytes:
                self._next_segment()
            if os.write(self._file, record) != len(record):
                raise OSError(errno.ENOSPC, "only a part of a record was written")
        except OSError as error:
            self.close()
            raise self._failed(error) from error
        self._written += len(record)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _next_segment(self) -> None:
        self._start += self._written
        self._written = 0
        # The new one is locked before the old one is let go: one of them always is.
        old, self._file = self._file, self._create()
        if old is not None:
            os.close(old)

    def _create(self) -> int:
        path = self._folder / f"{self._group}.{self._start:016x}{SUFFIX}"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _failed(self, error: OSError) -> JournalError:
        return JournalError(f"the journal of group {self._group} in {self._folder}: {error}")


def encode(tallies: Sequence[Tally]) -> bytes:
    """One record."""
    payload = b"".join(_entries(tallies))
    lengths = _LENGTHS.pack(len(payload), crc32(payload))
    return _HEADER.pack(*_LENGTHS.unpack(lengths), crc32(lengths)) + payload


@dataclass(frozen=True, slots=True)
class Decoded:
    """What some bytes of a journal say.

    Attributes:
        length: up to the end of the last whole record.
        lost: of these, bytes between records that are none.
        rest_is_torn: what follows them may be the beginning of a record.
    """

    tallies: tuple[Tally, ...]
    length: int
    lost: int
    rest_is_torn: bool


def decode(data: bytes, suffix: str = SUFFIX) -> Decoded:
    """Read what records there are; after bytes that are none, look for the next that is one.

    Args:
        suffix: one of ``FORMATS``.
    """
    tallies: list[Tally] = []
    offset = length = lost = 0
    while (payload := _payload(data, offset)) is not None:
        if payload:
            tallies += _tallies(payload, _ENTRIES[suffix])
            lost += offset - length
            offset = length = offset + _HEADER.size + len(payload)
        else:
            offset += 1
    return Decoded(tuple(tallies), length, lost, rest_is_torn=offset == length)


def _payload(data: bytes, offset: int) -> bytes | None:
    """Of the record at ``offset``; empty if none is there, None if the data ends before it does."""
    if len(data) - offset < _HEADER.size:
        return None
    length, checksum, own_checksum = _HEADER.unpack_from(data, offset)
    if crc32(data[offset : offset + _LENGTHS.size]) != own_checksum:
        return b""
    start = offset + _HEADER.size
    if start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if crc32(payload) == checksum else b""


def _entries(tallies: Sequence[Tally]) -> Iterator[bytes]:
    for tally in tallies:
        name = tally.request_id.encode()
        yield _ENTRIES[SUFFIX].pack(
            len(name),
            tally.attempt,
            tally.choice,
            tally.text,
            tally.image,
            tally.cached_text,
            tally.cached_image,
            tally.output,
            tally.rejected_draft,
        )
        yield name


def _tallies(payload: bytes, entry: struct.Struct) -> Iterator[Tally]:
    offset = 0
    while offset < len(payload):
        length, attempt, choice, *counts = entry.unpack_from(payload, offset)
        offset += entry.size
        yield Tally(payload[offset : offset + length].decode(), attempt, choice, *counts)
        offset += length
