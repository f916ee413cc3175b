"""Every error a caller can meet, and the only error→HTTP table.

    ApiError
    ├── InvalidRequest        400/422  the body is wrong; ``param`` names the field
    ├── Unauthorized          401
    ├── Forbidden             403      the key's role or scope does not reach so far
    ├── ModelNotFound         404
    ├── NotFound              404      an account, key, line … that is not there
    ├── Conflict              409      what is asked for clashes with what is
    │   └── InFlight          409      the same Idempotency-Key is still being answered
    ├── PayloadTooLarge       413
    ├── ReusedKey             422      an Idempotency-Key sent with another body
    ├── RateLimited           429      Retry-After says when there is room again
    ├── BudgetExhausted       429      the month's budget cannot hold this request; no retry helps
    ├── Overloaded            503      no room or no tier ready; Retry-After is sent
    │   └── LedgerUnavailable 503      the accounts cannot be written, so nothing is begun
    └── ServerFault           500      our fault; the request id finds it in the logs
        ├── GenerationFailed  502      a tier died while answering
        └── LedgerError       500      the accounts were told what contradicts them

Bodies are built in ``gateway/error_body.py`` so that both official clients parse them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from shards.errors import ContextLengthError, GroupError, RequestError

if TYPE_CHECKING:
    from serve_app.accounting.hold import Allowance


class ApiError(Exception):
    """Root. ``code`` is the machine-readable reason, ``param`` the field at fault if one is."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    default_retry_after_s: ClassVar[int | None] = None
    # Whether sending the same again may help; None leaves it to the client.
    should_retry: ClassVar[bool | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or self.default_code
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.param, self.code, self.retry_after_s))


class InvalidRequest(ApiError):  # noqa: N818  (reads as what it is)
    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class Unauthorized(ApiError):  # noqa: N818
    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(ApiError):  # noqa: N818
    status = 403
    type = "permission_error"
    default_code = "permission_denied"


class ModelNotFound(ApiError):  # noqa: N818
    status = 404
    type = "invalid_request_error"
    default_code = "model_not_found"


class NotFound(ApiError):  # noqa: N818
    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class Conflict(ApiError):  # noqa: N818
    status = 409
    type = "invalid_request_error"
    default_code = "conflict"


class InFlight(Conflict):
    default_code = "request_in_flight"
    default_retry_after_s = 2
    should_retry = True


class PayloadTooLarge(ApiError):  # noqa: N818
    status = 413
    type = "invalid_request_error"
    default_code = "payload_too_large"


class ReusedKey(ApiError):  # noqa: N818
    status = 422
    type = "invalid_request_error"
    default_code = "idempotency_key_reused"
    should_retry = False


class RateLimited(ApiError):  # noqa: N818
    """``requests`` and ``tokens`` say how much of the rates is left, where that was counted."""

    status = 429
    type = "rate_limit_error"
    default_code = "rate_limit_exceeded"
    default_retry_after_s = 1
    should_retry = True
    requests: Allowance | None = None
    tokens: Allowance | None = None


class BudgetExhausted(ApiError):  # noqa: N818
    status = 429
    type = "insufficient_quota"
    default_code = "insufficient_quota"
    should_retry = False


class Overloaded(ApiError):  # noqa: N818
    status = 503
    type = "overloaded_error"
    default_code = "overloaded"
    default_retry_after_s = 2
    should_retry = True


class LedgerUnavailable(Overloaded):
    default_code = "ledger_unavailable"


class ServerFault(ApiError):  # noqa: N818
    status = 500


class GenerationFailed(ServerFault):
    status = 502
    default_code = "generation_failed"


class LedgerError(ServerFault):
    """A bug, told loudly instead of being booked: what was asked for was not written."""

    default_code = "ledger_error"


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


def faults() -> Iterator[tuple[str, str]]:
    """(status, code) of every kind of error above, for whoever counts them."""
    kinds = [ApiError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__ == __name__ and kind is not ApiError:
            yield str(int(kind.status)), kind.default_code


def _rebuild(
    kind: type[ApiError], message: str, param: str | None, code: str, retry_after_s: int | None
) -> ApiError:
    return kind(message, param=param, code=code, retry_after_s=retry_after_s)
