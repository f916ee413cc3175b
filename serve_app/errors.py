"""Every error a caller can meet, and the only error→HTTP table.

    ApiError
    ├── InvalidRequest        400/422  the body is wrong; ``param`` names the field
    ├── Unauthorized          401
    ├── ModelNotFound         404
    ├── PayloadTooLarge       413
    ├── Overloaded            503      no room or no tier ready; Retry-After is sent
    └── ServerFault           500      our fault; the request id finds it in the logs
        └── GenerationFailed  502      a tier died while answering

Bodies are built in ``gateway/error_body.py`` so that both official clients parse them.
"""

from __future__ import annotations

from typing import ClassVar

from shards.errors import ContextLengthError, GroupError, RequestError


class ApiError(Exception):
    """Root. ``code`` is the machine-readable reason, ``param`` the field at fault if one is."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.param, self.code))


class InvalidRequest(ApiError):  # noqa: N818  (reads as what it is)
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class Unauthorized(ApiError):  # noqa: N818
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class ModelNotFound(ApiError):  # noqa: N818
    status = 404
    type = "invalid_request_error"
    default_code = "model_not_found"


class PayloadTooLarge(ApiError):  # noqa: N818
    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class Overloaded(ApiError):  # noqa: N818
    status = 503
    type = "overloaded_error"
    default_code = "overloaded"
    retry_after_s = 2


class ServerFault(ApiError):  # noqa: N818
    status = 500


class GenerationFailed(ServerFault):
    status = 502
    default_code = "generation_failed"


def api_error(error: BaseException) -> ApiError:
    """Translate any exception to what the caller is told; unknown ones stay anonymous."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, RequestError):
        code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
        return InvalidRequest(error.message, param=error.param, code=code)
    if isinstance(error, GroupError):
        return GenerationFailed("the model's group of GPUs failed while answering; try again")
    return ServerFault("internal error; quote the request id when reporting it")


def _rebuild(kind: type[ApiError], message: str, param: str | None, code: str) -> ApiError:
    return kind(message, param=param, code=code)
