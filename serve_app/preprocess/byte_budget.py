"""How many bytes may be in memory at once, for one request and for all of a replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.errors import Overloaded
from serve_app.instruments import Level


class Spent(Exception):  # noqa: N818  (reads as what it is)
    """One request has taken all that one request may."""


class ByteBudget:
    """Of a replica; used in one event loop. ``level`` shows what is taken."""

    def __init__(self, limit: int, level: Level) -> None:
        self._limit = limit
        self._level = level
        self._taken = 0

    @contextmanager
    def portion(self, limit: int) -> Iterator[Portion]:
        """One request's, at most ``limit``; all of it is given back when the block ends."""
        portion = Portion(self, limit)
        try:
            yield portion
        finally:
            self.change(-portion.taken)

    def change(self, count: int) -> None:
        """Raises Overloaded: others have taken too much."""
        if count > 0 and self._taken + count > self._limit:
            raise Overloaded("too many pictures are being fetched right now; try again shortly")
        self._taken += count
        self._level.set(self._taken)


class Portion:
    def __init__(self, budget: ByteBudget, limit: int) -> None:
        self._budget = budget
        self._limit = limit
        self.taken = 0

    def take(self, count: int) -> None:
        """Raises Spent or Overloaded, and then nothing is taken."""
        if self.taken + count > self._limit:
            raise Spent
        self._budget.change(count)
        self.taken += count
