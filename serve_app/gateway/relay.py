"""An owner's transcript on its way to one client, who may hang up at any time."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType

from fastapi import Response
from starlette.types import Message, Receive, Scope, Send

from serve_app.errors import api_error
from serve_app.gateway.chat import Asked
from serve_app.gateway.disconnect import unless_gone
from serve_app.gateway.error_body import error_response
from serve_app.gateway.owners import Attendance, Owners
from serve_app.gateway.scribe import EVENT_STREAM, PING
from serve_app.gateway.transcript import Head
from serve_app.log import logger

_logger = logger(__name__)
_NO_MORE: Mapping[str, str] = MappingProxyType({})


class Relay(Response):
    """The request is begun only here, where whatever ends the response also ends attending.

    Status and headers are held back until there is an answer, so that early failures have their
    own. Silence in a stream is filled with comments.
    """

    def __init__(self, owners: Owners, asked: Asked, ping_interval_s: float) -> None:
        super().__init__()
        self._owners = owners
        self._asked = asked
        self._ping_interval_s = ping_interval_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            ReusedKey, Overloaded: not taken in.
        """
        with self._owners.attend(self._asked) as attendance:
            await unless_gone(receive, self._relay(attendance, scope, receive, send))

    async def _relay(
        self, attendance: Attendance, scope: Scope, receive: Receive, send: Send
    ) -> None:
        try:
            head = await attendance.transcript.head()
        except Exception as error:
            if not attendance.first:
                # The owner has logged why, under the id of the request that it runs.
                _logger.warning(
                    "repeat failed",
                    request_id=self._asked.request_id,
                    repeats=attendance.owner.asked.request_id,
                )
            await error_response(api_error(error), self._asked.dialect)(scope, receive, send)
        else:
            await self._send(head, attendance, send)

    async def _send(self, head: Head, attendance: Attendance, send: Send) -> None:
        transcript = attendance.transcript
        if head.media_type == EVENT_STREAM:
            await send(_start(head, attendance))
            async for data in transcript.read(self._ping_interval_s):
                body = PING if data is None else data
                await send({"type": "http.response.body", "body": body, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        else:
            body = b"".join([data async for data in transcript.read(self._ping_interval_s) if data])
            await send(_start(head, attendance, {"content-length": str(len(body))}))
            await send({"type": "http.response.body", "body": body})


def _start(head: Head, attendance: Attendance, more: Mapping[str, str] = _NO_MORE) -> Message:
    headers = {"content-type": head.media_type, **head.headers, **more}
    if attendance.replayed:
        headers["idempotent-replayed"] = "true"
    else:
        headers |= head.rates
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": HTTPStatus.OK, "headers": raw}
