"""Error responses: one body that the ``openai`` and the ``mistralai`` client both parse.

{"error": {message, type, param, code},                     openai
 "object": "error", message, type, param, code,             mistralai, most statuses
 "detail": [{loc, msg, type}, …]}                           mistralai, malformed bodies (422)
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from serve_app.errors import ApiError, RateLimited, Unauthorized
from serve_app.gateway.fields import Dialect
from serve_app.gateway.rate_headers import rate_headers
from serve_app.gateway.validation import MalformedBody

_LONGEST_WAIT_S = 120


def error_object(error: ApiError) -> dict[str, Any]:
    """What both clients look for, inside a body or a stream's last chunk."""
    message = error.message
    if error.param and error.param not in message:
        message = f"{error.param}: {message}"
    return {"message": message, "type": error.type, "param": error.param, "code": error.code}


class Refusal(JSONResponse):
    """Notes its error's code where whoever counts answers finds it."""

    def __init__(
        self, body: Mapping[str, Any], status: int, headers: Mapping[str, str] | None
    ) -> None:
        super().__init__(body, status, headers)
        self._code = str(body["code"])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["error_code"] = self._code
        await super().__call__(scope, receive, send)


def error_response(error: ApiError, dialect: Dialect) -> JSONResponse:
    body = _body(error_object(error))
    if isinstance(error, MalformedBody):
        body["detail"] = error.faults
    return Refusal(body, status_of(type(error), dialect), _headers(error))


def status_of(kind: type[ApiError], dialect: Dialect) -> int:
    """Mistral's API answers malformed bodies with 422, OpenAI's with 400."""
    if dialect is Dialect.MISTRAL and issubclass(kind, MalformedBody):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return kind.status


def http_error_response(error: HTTPException, route: str) -> JSONResponse:
    """No such route (404) or method (405), told in the same shape."""
    if error.status_code == HTTPStatus.NOT_FOUND:
        message, code = f"there is no route {route}", "not_found"
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        message, code = f"{route} does not take this method", "method_not_allowed"
    else:
        message, code = str(error.detail), "http_error"
    fault = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return Refusal(_body(fault), error.status_code, error.headers)


def _body(fault: Mapping[str, Any]) -> dict[str, Any]:
    return {"error": fault, "object": "error", **fault}


def _headers(error: ApiError) -> dict[str, str]:
    """``x-should-retry`` is for openai's client, which obeys Retry-After up to two minutes and
    would guess beyond."""
    headers = {}
    should_retry = error.should_retry
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
        should_retry = should_retry and error.retry_after_s <= _LONGEST_WAIT_S
    if should_retry is not None:
        headers["x-should-retry"] = "true" if should_retry else "false"
    if isinstance(error, RateLimited):
        headers |= rate_headers(error.requests, error.tokens)
    if isinstance(error, Unauthorized):
        headers["www-authenticate"] = "Bearer"
    return headers
