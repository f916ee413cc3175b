"""Who may use a route of /admin, by the table of accounting/roles.py; how bodies are refused."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from serve_app.accounting.principal import Principal
from serve_app.accounting.roles import Endpoint, Permission
from serve_app.errors import ApiError, InvalidRequest, PayloadTooLarge
from serve_app.gateway.validation import MalformedBody, param_path

_MAX_BODY_BYTES = 64 * 1024


class MalformedRequest(MalformedBody):
    """A body, a query or a path without the documented shape."""

    status: ClassVar[int] = HTTPStatus.UNPROCESSABLE_ENTITY


# For OpenAPI: what a route may answer that reads a body, or words of a query or path.
BAD_QUERY = (InvalidRequest, MalformedRequest)
BAD_BODY = (*BAD_QUERY, PayloadTooLarge)


def caller(permission: Permission, endpoint: Endpoint = Endpoint.ADMIN) -> Any:
    """A dependency: the principal, which has the permission. Raises Forbidden."""

    def check(request: Request) -> Principal:
        principal: Principal = request.state.principal
        principal.check_endpoint(endpoint)
        principal.check(permission)
        return principal

    return Depends(check)


class AdminRoute(APIRoute):
    """Bounds the body, and names what is wrong with it without repeating it: it may be a secret."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_bounded(request: Request) -> Response:
            try:
                return await handle(Request(request.scope, _bounded(request)))
            except RequestValidationError as error:
                raise MalformedRequest([_fault(item) for item in error.errors()]) from None
            except HTTPException as error:
                # FastAPI's own for whatever fails while the body is read.
                if isinstance(error.__cause__, ApiError):
                    raise error.__cause__ from None
                if error.status_code == HTTPStatus.BAD_REQUEST:
                    message = "the body cannot be read as JSON"
                    raise InvalidRequest(message, code="invalid_json") from None
                raise

        return handle_bounded


def _bounded(request: Request) -> Receive:
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > _MAX_BODY_BYTES:
            raise PayloadTooLarge(f"the request body is larger than {_MAX_BODY_BYTES} bytes")
        return message

    return receive


def _fault(problem: dict[str, Any]) -> dict[str, Any]:
    where = list(problem["loc"][1:])
    words = str(problem["msg"]).replace("Input should be", "must be")
    message = f"{param_path(where)}: {words}" if where else words
    return {"loc": where, "msg": message, "type": problem["type"]}
