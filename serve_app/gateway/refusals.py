"""What routes refuse, as /openapi.json tells it: statuses and codes are those of errors.py."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from serve_app.errors import ApiError, Forbidden, LedgerUnavailable, ServerFault, Unauthorized
from serve_app.gateway.error_body import status_of
from serve_app.gateway.fields import Dialect

_KEYED = (Unauthorized, Forbidden, LedgerUnavailable, ServerFault)
_RETRY_AFTER = {
    "Retry-After": {
        "description": "Seconds until there may be room again; absent where waiting does not help",
        "schema": {"type": "integer", "minimum": 0},
    }
}


class ErrorObject(BaseModel):
    """``param`` names the field at fault, ``code`` the reason, for programs."""

    model_config = ConfigDict(extra="forbid")

    message: str
    type: str
    param: str | None
    code: str


class Fault(BaseModel):
    """One of what is wrong with a body; the first is also the error."""

    model_config = ConfigDict(extra="forbid")

    loc: list[str | int]
    msg: str
    type: str


class ErrorBody(ErrorObject):
    """For clients of OpenAI's ``error``, for Mistral's the rest; ``detail`` of malformed bodies."""

    error: ErrorObject
    object: Literal["error"]
    detail: list[Fault] = []


def refusals(
    *errors: type[ApiError], dialect: Dialect = Dialect.OPENAI
) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that asks for an API key: ``errors`` and what any such answers."""
    return unkeyed_refusals(*_KEYED, *errors, dialect=dialect)


def unkeyed_refusals(
    *errors: type[ApiError], dialect: Dialect = Dialect.OPENAI
) -> dict[int | str, dict[str, Any]]:
    """``responses`` of a route that answers ``errors``."""
    kinds: dict[int, list[type[ApiError]]] = {}
    for error in errors:
        kinds.setdefault(status_of(error, dialect), []).append(error)
    return {status: _response(status, kinds[status]) for status in sorted(kinds)}


def _response(status: int, kinds: list[type[ApiError]]) -> dict[str, Any]:
    codes = ", ".join(dict.fromkeys(f"`{kind.default_code}`" for kind in kinds))
    response = {"model": ErrorBody, "description": f"{HTTPStatus(status).phrase}: {codes}"}
    if any(kind.default_retry_after_s is not None for kind in kinds):
        response["headers"] = _RETRY_AFTER
    return response
