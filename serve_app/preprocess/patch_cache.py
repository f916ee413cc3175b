"""What files were found to hold, for when they come again, as in the next turn. Knows no Ray.

A file is known by the sha256 of its bytes, what was wished of it, and a salt: who does not share a
salt learns nothing, not even from how long an answer takes, of what others have sent. Arrays are
kept in this process' own memory: what stays in the object store leaves no room for what passes
through.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class PatchCache:
    """The last used, within ``max_bytes``. In one event loop.

    Args:
        watch: told after each change how many bytes are kept.
    """

    def __init__(self, max_bytes: int, watch: Callable[[int], None] | None = None) -> None:
        self._max_bytes = max_bytes
        self._watch = watch
        self._bytes = 0
        # The least recently used first; with each its bytes.
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def takes(self, size: int) -> bool:
        """Whether something of so many bytes would be kept at all."""
        return size <= self._max_bytes

    def get(self, key: Hashable) -> Any | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        self._kept.move_to_end(key)
        return kept[0]

    def keep(self, key: Hashable, value: Any, size: int) -> None:
        """``size`` in bytes; the oldest make room."""
        if not self.takes(size) or key in self._kept:
            return
        self._kept[key] = value, size
        self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, oldest) = self._kept.popitem(last=False)
            self._bytes -= oldest
        if self._watch is not None:
            self._watch(self._bytes)
