"""Decides whether a request may begin, and reserves what it may cost: a transaction's inside.

A request is checked against key, team and organisation before anything of any of them changes: one
that is refused consumes nothing. What no retry can help is said first: an unknown key, a request
larger than a limit, an exhausted budget; then what passes: concurrency, rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.accounts import Account, Accounts
from serve_app.accounting.authenticator import REFUSAL
from serve_app.accounting.calendar import MICROSECONDS, day_of, month_of
from serve_app.accounting.database import padded
from serve_app.accounting.hold import Allowance, Hold, HoldRequest, HoldState
from serve_app.accounting.money import format_usd
from serve_app.accounting.rates import tightest
from serve_app.accounting.schema import holds
from serve_app.accounting.writes import Mode, Write, Writes
from serve_app.errors import (
    ApiError,
    BudgetExhausted,
    InvalidRequest,
    LedgerUnavailable,
    RateLimited,
    Unauthorized,
)

# Rate -> what it counts, and the field of a request that can be lowered to fit.
_RATES = {
    "requests": ("requests", None),
    "input_tokens": ("input tokens", "messages"),
    "output_tokens": ("output tokens", "max_tokens"),
}


def open_holds(
    writes: Writes,
    accounts: Accounts,
    requests: Sequence[HoldRequest],
    *,
    owner: str,
    now_us: int,
    lease_us: int,
) -> dict[str, Hold | ApiError]:
    """Decide on each in turn, on accounts that are locked and left to save.

    Returns by request id a hold, or the refusal: Unauthorized, InvalidRequest, BudgetExhausted,
    RateLimited.
    """
    decided = {request.request_id: decide(accounts, request, now_us) for request in requests}
    made = (hold for hold in decided.values() if isinstance(hold, Hold))
    writes.add(_OPEN, (_row(hold, owner, lease_us) for hold in made))
    return decided


async def find_own(
    connection: AsyncConnection, requests: Sequence[HoldRequest], owner: str
) -> dict[str, Hold | ApiError]:
    """Which of these this gateway has opened already, in a transaction of unknown fate."""
    if not requests:
        return {}
    by_id = {request.request_id: request for request in requests}
    values = {"ids": padded(list(by_id)), "owner": owner}
    rows = (await connection.execute(_OWN, values)).mappings()
    return {row["request_id"]: _found(by_id[row["request_id"]], row) for row in rows}


def decide(accounts: Accounts, request: HoldRequest, now_us: int) -> Hold | ApiError:
    """Pure but for the change to ``accounts``, which a refusal leaves as they were."""
    month = month_of(now_us)
    payers = accounts.of(request.payer)
    if payers is None or not all(account.active for account in payers):
        return Unauthorized(REFUSAL)
    amount, units = request.amount_nano_usd, _units(request)
    refusal = (
        _too_large(payers, request, units)
        or _budget_refusal(accounts, payers, amount, month)
        or _concurrency_refusal(payers)
        or _rate_refusal(payers, units, now_us)
    )
    if isinstance(refusal, RateLimited):
        refusal.requests, refusal.tokens = _allowances(payers, now_us)
    if refusal is not None:
        return refusal
    for account in payers:
        account.concurrent += 1
        accounts.balance(account.id, month).held += amount
        for rate, count in units.items():
            setattr(account, rate, getattr(account, rate).taken(count, now_us))
    requests, tokens = _allowances(payers, now_us)
    return Hold(request, month, day_of(now_us), now_us, requests, tokens)


def _allowances(
    payers: tuple[Account, ...], now_us: int
) -> tuple[Allowance | None, Allowance | None]:
    """What is left of requests, and of tokens in or out."""
    left = {
        rate: [getattr(account, rate).allowance(now_us) for account in payers] for rate in _RATES
    }
    return tightest(left["requests"]), tightest(left["input_tokens"] + left["output_tokens"])


def _too_large(
    payers: tuple[Account, ...], request: HoldRequest, units: dict[str, int]
) -> InvalidRequest | None:
    for account in payers:
        if account.max_pictures is not None and request.pictures > account.max_pictures:
            return InvalidRequest(
                f"{account}: a request may have {account.max_pictures} pictures, "
                f"and this one has {request.pictures}",
                param="messages",
            )
        for rate, count in units.items():
            bucket = getattr(account, rate)
            if not bucket.fits_ever(count):
                what, param = _RATES[rate]
                return InvalidRequest(
                    f"{account}: this request may use {count} {what}, and {bucket.limit} are "
                    "allowed per minute: it can never fit",
                    param=param,
                )
    return None


def _budget_refusal(
    accounts: Accounts, payers: tuple[Account, ...], amount: int, month: str
) -> BudgetExhausted | None:
    for account in payers:
        if account.budget is None:
            continue
        balance = accounts.balance(account.id, month)
        left = account.budget - balance.posted - balance.held
        if left < amount:
            return BudgetExhausted(
                f"{account}: {format_usd(max(0, left))} USD of the budget for {month} are left, "
                f"and this request may cost up to {format_usd(amount)} USD"
            )
    return None


def _concurrency_refusal(payers: tuple[Account, ...]) -> RateLimited | None:
    for account in payers:
        if account.max_concurrent is not None and account.concurrent >= account.max_concurrent:
            return RateLimited(
                f"{account}: {account.concurrent} requests are running, and "
                f"{account.max_concurrent} may run at once"
            )
    return None


def _rate_refusal(
    payers: tuple[Account, ...], units: dict[str, int], now_us: int
) -> RateLimited | None:
    """The one that takes longest to pass, so that whoever waits for it meets no other."""
    waits = [
        (getattr(account, rate).wait_us(count, now_us), account, rate)
        for account in payers
        for rate, count in units.items()
    ]
    wait_us, account, rate = max(waits, key=lambda wait: wait[0])
    if not wait_us:
        return None
    retry_after_s = -(-wait_us // MICROSECONDS)
    return RateLimited(
        f"{account}: the limit of {getattr(account, rate).limit} {_RATES[rate][0]} per minute is "
        f"reached; there is room for this request in {retry_after_s} s",
        retry_after_s=retry_after_s,
    )


def _units(request: HoldRequest) -> dict[str, int]:
    return {
        "requests": 1,
        "input_tokens": request.tokens.prompt,
        "output_tokens": request.max_output_tokens,
    }


def _row(hold: Hold, owner: str, lease_us: int) -> dict[str, Any]:
    request = hold.request
    return {
        "request_id": request.request_id,
        "key_id": request.payer.key_id,
        "team_id": request.payer.team_id,
        "organisation_id": request.payer.organisation_id,
        "model": request.prices.model,
        "price_version": request.prices.id,
        "month": hold.month,
        "day": hold.day,
        "amount_nano_usd": request.amount_nano_usd,
        "text_tokens": request.tokens.text,
        "image_tokens": request.tokens.image,
        "max_output_tokens": request.max_output_tokens,
        "pictures": request.pictures,
        "state": HoldState.HELD,
        "owner": owner,
        "created_us": hold.created_us,
        "lease_until_us": hold.created_us + lease_us,
    }


def _found(request: HoldRequest, row: RowMapping) -> Hold | ApiError:
    if row["state"] != HoldState.HELD:
        return LedgerUnavailable("the accounts could not be reached for too long")
    return Hold(request, row["month"], row["day"], row["created_us"])


_OWN = select(holds).where(
    holds.c.request_id.in_(bindparam("ids", expanding=True)),
    holds.c.owner == bindparam("owner"),
)
_OPEN = Write(
    Mode.INSERT,
    holds,
    ("request_id",),
    (
        "key_id",
        "team_id",
        "organisation_id",
        "model",
        "price_version",
        "month",
        "day",
        "amount_nano_usd",
        "text_tokens",
        "image_tokens",
        "max_output_tokens",
        "pictures",
        "state",
        "owner",
        "created_us",
        "lease_until_us",
    ),
)
