"""Who holds which block of the paged KV cache, and what idle blocks still contain.

Knows nothing of requests or tokens: a holder is whoever put a block into its table, a name stands
for a block's content (prefix_cache.py makes them). Standard library only.

    free    nobody holds it, nothing in it is worth keeping
    held    in one table or in several (sequences that begin alike)
    idle    nobody holds it, but it has a name: found again until the room is needed
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence


class BlockAccountingError(RuntimeError):
    """The books do not balance: a bug of ours, never a caller's fault."""


class BlockAllocator:
    """Hands out the ids 0 .. ``total - 1``, each to one new holder at a time."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError(f"a KV cache needs at least one block, not {total}")
        self.total = total
        # Taken from the end: the lowest ids go out first, which keeps traces readable.
        self._free = list(range(total - 1, -1, -1))
        self._holders = [0] * total
        self._name_of: dict[int, bytes] = {}
        self._named: dict[bytes, int] = {}
        # Least recently used first.
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Blocks nobody holds, idle ones included."""
        return len(self._free) + len(self._idle)

    def allocate(self, count: int) -> list[int]:
        """``count`` blocks, each with one holder; idle ones lose their content, oldest first.

        Raises:
            BlockAccountingError: fewer are free; the scheduler promises this cannot happen.
        """
        if count > self.free:
            raise BlockAccountingError(f"{count} blocks asked for, {self.free} free")
        blocks = [self._free.pop() if self._free else self._evict() for _ in range(count)]
        for block in blocks:
            self._holders[block] = 1
        return blocks

    def share(self, blocks: Sequence[int]) -> None:
        """Add one holder to each block.

        Raises:
            BlockAccountingError: a block is free, so its content may be overwritten at any time.
        """
        for block in blocks:
            if self._holders[block] == 0:
                if block not in self._idle:
                    raise BlockAccountingError(f"block {block} is free and cannot be shared")
                del self._idle[block]
            self._holders[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Take one holder from each block of a table; without any it is free, or idle if named.

        The last block idles longest unused: what comes after is of no use without what precedes.

        Raises:
            BlockAccountingError: a block is released more often than it was held.
        """
        for block in reversed(blocks):
            if self._holders[block] == 0:
                raise BlockAccountingError(f"block {block} is released twice")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                if block in self._name_of:
                    self._idle[block] = None
                else:
                    self._free.append(block)

    def name(self, block: int, name: bytes) -> None:
        """Say what a held block contains; a content that has a block already keeps that one.

        Raises:
            BlockAccountingError: nobody holds it.
        """
        if self._holders[block] == 0:
            raise BlockAccountingError(f"block {block} is free and cannot be named")
        if name not in self._named and block not in self._name_of:
            self._named[name] = block
            self._name_of[block] = name

    def find(self, name: bytes) -> int | None:
        """The block, held or idle, with this content."""
        return self._named.get(name)

    def idle(self, blocks: Iterable[int]) -> int:
        """How many of these nobody holds: sharing them takes as many of the free ones."""
        return sum(self._holders[block] == 0 for block in blocks)

    def own(self, table: Iterable[int]) -> int:
        """How many blocks would be free if this table were released."""
        return sum(self._holders[block] == 1 for block in table)

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Compare the books with all block tables there are.

        Raises:
            BlockAccountingError: a block is leaked, freed while held, or listed free twice.
        """
        held = Counter(block for table in tables for block in table)
        free = Counter([*self._free, *self._idle])
        for block, holders in enumerate(self._holders):
            if held[block] != holders:
                raise BlockAccountingError(
                    f"block {block} is in {held[block]} tables but has {holders} holders"
                )
            if free[block] != (holders == 0):
                raise BlockAccountingError(
                    f"block {block} has {holders} holders and is listed free {free[block]} times"
                )
            if holders == 0 and (block in self._idle) != (block in self._name_of):
                raise BlockAccountingError(f"block {block} idles without a name, or has one unused")
        if {block: name for name, block in self._named.items()} != self._name_of:
            raise BlockAccountingError("two blocks have one name, or one has two")

    def _evict(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._named[self._name_of.pop(block)]
        return block
