"""The last used of what may be wanted again, within so many bytes. Standard library only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteCache(Generic[K, V]):
    """For one thread or event loop.

    Args:
        watch: told after each change how many bytes are kept.
    """

    def __init__(self, max_bytes: int, watch: Callable[[int], None] | None = None) -> None:
        self._max_bytes = max_bytes
        self._watch = watch
        self._bytes = 0
        # The least recently used first; with each its bytes.
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def takes(self, size: int) -> bool:
        """Whether something of so many bytes would be kept at all."""
        return size <= self._max_bytes

    def get(self, key: K) -> V | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def keep(self, key: K, value: V, size: int) -> None:
        """``size`` in bytes; the oldest make room. What is kept already stays."""
        if not self.takes(size) or key in self._kept:
            return
        self._kept[key] = value, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._bytes -= oldest
        if self._watch is not None:
            self._watch(self._bytes)
