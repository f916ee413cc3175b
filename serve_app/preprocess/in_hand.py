"""How many pictures a replica has in hand: beyond that, who asks is told to come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.errors import Overloaded


class InHand:
    """``max_pictures``, and ``max_bytes`` of their files. In one event loop."""

    def __init__(self, max_pictures: int, max_bytes: int) -> None:
        self._max_pictures = max_pictures
        self._max_bytes = max_bytes
        self._pictures = 0
        self._bytes = 0

    @contextmanager
    def taken(self, pictures: int, size: int) -> Iterator[None]:
        """A request's, until the block ends; one that is alone is never too large.

        Raises:
            Overloaded: others have taken too much.
        """
        self._check(pictures, size)
        self._pictures += pictures
        self._bytes += size
        try:
            yield
        finally:
            self._pictures -= pictures
            self._bytes -= size

    def _check(self, pictures: int, size: int) -> None:
        if not pictures or not self._pictures:
            return
        if self._pictures + pictures > self._max_pictures or self._bytes + size > self._max_bytes:
            raise Overloaded("too many pictures are being prepared right now; try again shortly")
