"""How many bytes of request bodies a gateway holds at once: beyond that, who sends more is told to
come back before his bytes are read.

A body is held until its request is answered, and a picture in it is in memory about three times:
as it came, decoded from base64, and on its way to preprocessing. Plain ASGI, so that nothing is
buffered for it.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import Overloaded

# What has no pictures always finds room: a flood of pictures holds up nobody who writes.
SMALL_BYTES = 64 * 1024


class BodyRoom:
    """``max_bytes``: of all bodies that are larger than 64 KiB; one that is alone may be larger."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def counted() -> Message:
            """Raises Overloaded: others hold too much."""
            nonlocal taken
            message = await receive()
            taken = self._taken_more(taken, len(message.get("body", b"")))
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._held -= _large(taken)

    def _taken_more(self, taken: int, more: int) -> int:
        total = taken + more
        held = self._held - _large(taken)
        if held and more and _large(total) and held + total > self._max_bytes:
            raise Overloaded("too many pictures are being sent right now; try again shortly")
        self._held = held + _large(total)
        return total


def _large(size: int) -> int:
    return size if size > SMALL_BYTES else 0
