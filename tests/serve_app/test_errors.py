import pickle

import pytest

from serve_app import errors
from serve_app.errors import (
    ApiError,
    BudgetExhausted,
    Conflict,
    Forbidden,
    GenerationFailed,
    InFlight,
    InvalidRequest,
    LedgerError,
    LedgerUnavailable,
    ModelNotFound,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    ReusedKey,
    ServerFault,
    Unauthorized,
    api_error,
)
from shards.errors import ContextLengthError, GroupError, RequestError

STATUSES = {
    InvalidRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    ModelNotFound: 404,
    NotFound: 404,
    Conflict: 409,
    InFlight: 409,
    PayloadTooLarge: 413,
    ReusedKey: 422,
    RateLimited: 429,
    BudgetExhausted: 429,
    ServerFault: 500,
    LedgerError: 500,
    GenerationFailed: 502,
    Overloaded: 503,
    LedgerUnavailable: 503,
}


def test_every_error_has_its_status() -> None:
    tree = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ApiError) and kind is not ApiError
    }
    assert {kind: kind.status for kind in tree} == STATUSES


@pytest.mark.parametrize("kind", STATUSES)
def test_an_error_crosses_processes_whole(kind: type[ApiError]) -> None:
    error = kind("why", param="messages[0]", code="because")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is kind
    assert (copy.message, copy.param, copy.code) == ("why", "messages[0]", "because")
    assert str(copy) == "why"


def test_only_what_passes_by_itself_asks_to_come_back() -> None:
    waits = {kind for kind in STATUSES if kind("why").retry_after_s is not None}
    assert waits == {InFlight, RateLimited, Overloaded, LedgerUnavailable}
    assert {kind for kind in STATUSES if kind.should_retry} == waits
    assert {kind for kind in STATUSES if kind.should_retry is False} == {BudgetExhausted, ReusedKey}


def test_the_engine_s_refusals_keep_their_field() -> None:
    error = api_error(RequestError("top_p", "must be above 0"))
    assert isinstance(error, InvalidRequest)
    assert (error.param, error.message) == ("top_p", "must be above 0")
    assert api_error(ContextLengthError("messages", "too long")).code == "context_length_exceeded"


def test_unknown_faults_tell_nothing() -> None:
    error = api_error(RuntimeError("/root/secret: user prompt 'hello'"))
    assert error.status == 500
    assert "secret" not in error.message
    assert "hello" not in error.message


def test_a_lost_group_is_our_fault() -> None:
    error = api_error(GroupError("rank 3 of 4 lost its group"))
    assert isinstance(error, GenerationFailed)
    assert "rank" not in error.message
