"""Which blocks hold the beginning of a sequence already. Standard library only.

A full block is named by a hash of all that its keys and values depend on: the block before it (and
so everything before it), its token ids, and the pictures that its tokens stand for. The first has
the root before it, which is a team's salt: a name made under one salt is never made under another,
so no team can learn from a hit what another one sent.

    tokens     s e e I | I b I I | e o k .     block size 4, one picture at 3 .. 8
    names      h(root, s e e I, picture at -3)
                         h(^, I b I I, picture at 1)
                                   h(^, e o k ., picture at 5)
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from shards.blocks import BlockAllocator

_NAME_BYTES = 32
_PLACE = struct.Struct("<qI")


@dataclass(frozen=True, slots=True)
class PlacedPicture:
    """A picture's tokens are at [start, stop), row ends included; and a hash of its content."""

    start: int
    stop: int
    content: bytes


class Tokens(Protocol):
    """A sequence whose blocks are named."""

    def tokens(self, start: int, stop: int) -> Sequence[int]:
        """Those known at positions [start, stop)."""


def shared_root(salt: str) -> bytes:
    """Before the first block of all sequences under one salt."""
    return _hash(b"salt", salt.encode())


def private_root(serial: int) -> bytes:
    """Before the first block of one request's sequences, and of nobody else's."""
    return _hash(b"request", serial.to_bytes(8, "little"))


class Chain:
    """The names of a sequence's full blocks, made when they are asked for.

    Args:
        root: before the first block.
        pictures: all of the sequence's, by position.
    """

    def __init__(
        self, root: bytes, block_size: int, pictures: Sequence[PlacedPicture] = ()
    ) -> None:
        self._root = root
        self._block_size = block_size
        self._pictures = pictures
        self._names: list[bytes] = []

    def fork(self, blocks: int) -> Chain:
        """For a sequence with the same first ``blocks`` blocks."""
        chain = Chain(self._root, self._block_size, self._pictures)
        chain._names = self._names[:blocks]
        return chain

    def name(self, index: int, sequence: Tokens) -> bytes:
        """Of block ``index``, whose tokens are all known."""
        while len(self._names) <= index:
            self._names.append(self._next(sequence))
        return self._names[index]

    def _next(self, sequence: Tokens) -> bytes:
        start = len(self._names) * self._block_size
        stop = start + self._block_size
        before = self._names[-1] if self._names else self._root
        parts = [before, array("q", sequence.tokens(start, stop)).tobytes()]
        for picture in self._pictures:
            if picture.start < stop and start < picture.stop:
                parts.append(_PLACE.pack(start - picture.start, len(picture.content)))
                parts.append(picture.content)
        return _hash(*parts)


class PrefixCache:
    """Finds blocks by what they hold, and names those that were computed."""

    def __init__(self, blocks: BlockAllocator, block_size: int) -> None:
        self._blocks = blocks
        self._block_size = block_size

    def match(self, chain: Chain, sequence: Tokens, known: int) -> list[int]:
        """Blocks that hold the first of ``known`` tokens; the last is left to be computed."""
        found: list[int] = []
        for index in range((known - 1) // self._block_size):
            block = self._blocks.find(chain.name(index, sequence))
            if block is None:
                break
            found.append(block)
        return found

    def keep(
        self, chain: Chain, sequence: Tokens, table: Sequence[int], first: int, computed: int
    ) -> int:
        """Name the blocks of a table from ``first`` on whose tokens are all computed.

        Returns:
            the first that is not.
        """
        stop = computed // self._block_size
        for index in range(first, stop):
            self._blocks.name(table[index], chain.name(index, sequence))
        return max(first, stop)


def _hash(*parts: bytes) -> bytes:
    hashed = blake2b(digest_size=_NAME_BYTES)
    for part in parts:
        hashed.update(part)
    return hashed.digest()
