"""Who holds which block of the paged KV cache. Standard library only.

Knows nothing of requests or tokens: a holder is whoever put a block into its table. A block may
have several holders (choices that share a prompt); it is free again when the last lets go.
"""

from __future__ import annotations

from collections import Counter
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

    @property
    def free(self) -> int:
        """Blocks nobody holds."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """``count`` blocks, each with one holder.

        Raises:
            BlockAccountingError: fewer are free; the scheduler promises this cannot happen.
        """
        if count > len(self._free):
            raise BlockAccountingError(f"{count} blocks asked for, {len(self._free)} free")
        blocks = [self._free.pop() for _ in range(count)]
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
                raise BlockAccountingError(f"block {block} is free and cannot be shared")
            self._holders[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """Take one holder from each block; those without any are free at once.

        Raises:
            BlockAccountingError: a block is released more often than it was held.
        """
        for block in blocks:
            if self._holders[block] == 0:
                raise BlockAccountingError(f"block {block} is released twice")
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free.append(block)

    def check(self, tables: Iterable[Sequence[int]]) -> None:
        """Compare the books with all block tables there are.

        Raises:
            BlockAccountingError: a block is leaked, freed while held, or listed free twice.
        """
        held = Counter(block for table in tables for block in table)
        free = Counter(self._free)
        for block, holders in enumerate(self._holders):
            if held[block] != holders:
                raise BlockAccountingError(
                    f"block {block} is in {held[block]} tables but has {holders} holders"
                )
            if free[block] != (holders == 0):
                raise BlockAccountingError(
                    f"block {block} has {holders} holders and is listed free {free[block]} times"
                )
