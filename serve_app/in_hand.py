"""How much of pictures a replica has in hand: beyond that, who asks is told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.errors import Overloaded


class InHand:
    """At most ``limit`` of something. In one event loop."""

    def __init__(self, limit: int, what: str = "prepared") -> None:
        self._limit = limit
        self._refusal = f"too many pictures are being {what} right now; try again shortly"
        self._taken = 0

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """A request's, until the block ends; one that is alone is never too large.

        Raises:
            Overloaded: others have taken too much.
        """
        if amount and self._taken and self._taken + amount > self._limit:
            raise Overloaded(self._refusal)
        self._taken += amount
        try:
            yield
        finally:
            self._taken -= amount
