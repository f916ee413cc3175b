"""Ends holds: the inside of a transaction, shared by the ledger and the sweeper.

    claim the hold's row → lines and usage → rates, balances, alerts

A team's lines are posted to the balances of its key and its organisation too, whose budgets they
use up; waste is posted to the waste account alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.accounts import Account, Accounts
from serve_app.accounting.database import lock_rows, padded
from serve_app.accounting.hold import Charge, HoldState, Outcome, Settlement
from serve_app.accounting.posting import SELECT_TERMS, Terms, terms_of_row, write_lines
from serve_app.accounting.schema import (
    REVENUE_ACCOUNT,
    WASTE_ACCOUNT,
    alerts,
    holds,
    months,
)
from serve_app.accounting.tokens import Tokens
from serve_app.accounting.writes import Mode, Write, Writes
from serve_app.errors import LedgerError


@dataclass(frozen=True, slots=True)
class Closing:
    """A hold that is to end."""

    request_id: str
    settlement: Settlement


@dataclass(frozen=True, slots=True)
class Waste:
    """What was computed for a request and nobody pays; its hold has ended."""

    request_id: str
    charge: Charge


async def close_holds(
    connection: AsyncConnection, closings: Sequence[Closing], now_us: int
) -> tuple[str, ...]:
    """End those that are still held; those that ended before stay as they are.

    Returns the request ids that this call has ended.

    Raises:
        LedgerError: a settlement charges more than was held; nothing may be committed.
    """
    held = await claim(connection, (closing.request_id for closing in closings))
    accounts = await Accounts.lock(
        connection,
        (id for terms in held.values() for id in terms.payer.account_ids),
        (terms.month for terms in held.values()),
    )
    writes = Writes()
    close_claimed(writes, accounts, held, closings, now_us)
    accounts.save(writes)
    await writes.send(connection)
    return tuple(held)


async def claim(connection: AsyncConnection, request_ids: Iterable[str]) -> dict[str, Terms]:
    """Those that are still held, in order; nobody else can end them until the commit."""
    wanted = list(request_ids)
    if not wanted:
        return {}
    rows = (await connection.execute(_CLAIM, {"ids": padded(wanted)})).mappings()
    return {row["request_id"]: terms_of_row(row) for row in rows}


def close_claimed(
    writes: Writes,
    accounts: Accounts,
    held: dict[str, Terms],
    closings: Iterable[Closing],
    now_us: int,
) -> None:
    """As ``close_holds``, on rows and accounts that are locked; ``accounts`` is left to save."""
    # The first word counts, should one be closed twice in a batch.
    ending = {closing.request_id: closing.settlement for closing in reversed([*closings])}
    pairs = [(terms, ending[request_id]) for request_id, terms in held.items()]
    if not pairs:
        return
    spent = [check(terms, settlement) for terms, settlement in pairs]
    writes.add(_CLOSE, (_closed(terms, settlement, now_us) for terms, settlement in pairs))
    charged = [
        (terms, terms.payer.team_id, charge)
        for terms, settlement in pairs
        for charge in settlement.charges
    ]
    write_lines(writes, charged, now_us)
    for (terms, _), tokens in zip(pairs, spent, strict=True):
        writes.add(_CROSSED, _release(accounts, terms, tokens, now_us))


async def book_waste(connection: AsyncConnection, wastes: Sequence[Waste], now_us: int) -> None:
    """Charge the waste account at the prices of each request's hold, in its month; in the current
    month where that one is closed.

    A request's waste may be booked once per attempt, choice and kind.
    """
    if not wastes:
        return
    ids = padded([waste.request_id for waste in wastes])
    rows = (await connection.execute(SELECT_TERMS, {"ids": ids})).mappings()
    found = {row["request_id"]: terms_of_row(row) for row in rows}
    closed = set(await connection.scalars(select(months.c.month)))
    charged = [(found[waste.request_id], WASTE_ACCOUNT, waste.charge) for waste in wastes]
    accounts = Accounts({}, {})
    writes = Writes()
    for row in write_lines(writes, charged, now_us, closed):
        for account_id in (WASTE_ACCOUNT, REVENUE_ACCOUNT):
            accounts.post_to_platform(account_id, row["month"], row["nano_usd"])
    accounts.save(writes)
    await writes.send(connection)


def check(terms: Terms, settlement: Settlement) -> Tokens:
    """Refuse to charge for what was not reserved; returns what is charged, together.

    Raises:
        LedgerError
    """
    charges = settlement.charges
    if charges and settlement.outcome in (Outcome.FAILED, Outcome.REFUSED):
        raise _contradiction(terms, f"is {settlement.outcome} and yet charges its team")
    if len({(charge.attempt, charge.choice) for charge in charges}) < len(charges):
        raise _contradiction(terms, "charges one choice of an attempt twice")
    spent = sum((charge.tokens for charge in charges), Tokens())
    for what, found, most in (
        ("text tokens", spent.text + spent.cached_text, terms.text_tokens),
        ("image tokens", spent.image + spent.cached_image, terms.image_tokens),
        ("output tokens", spent.output, terms.max_output_tokens),
        ("rejected drafts", spent.rejected_draft, 0),
        ("nano-dollars", terms.prices.cost(spent), terms.amount_nano_usd),
    ):
        if found > most:
            raise _contradiction(terms, f"charges {found} {what}, and {most} were held")
    return spent


def _contradiction(terms: Terms, what: str) -> LedgerError:
    return LedgerError(f"the settlement of request {terms.request_id} {what}")


def _release(
    accounts: Accounts, terms: Terms, spent: Tokens, now_us: int
) -> Iterator[dict[str, Any]]:
    """Move what was held to what is posted, and give back what was reserved and not used.

    Yields soft thresholds that were crossed by it, as rows of ``alerts``.
    """
    nano_usd = terms.prices.cost(spent)
    payers = accounts.of(terms.payer)
    assert payers is not None, "a hold's accounts are never deleted"
    for account in payers:
        account.concurrent -= 1
        account.input_tokens = account.input_tokens.given_back(
            terms.prompt_tokens - spent.prompt, now_us
        )
        account.output_tokens = account.output_tokens.given_back(
            terms.max_output_tokens - spent.output, now_us
        )
        balance = accounts.balance(account.id, terms.month)
        yield from _crossed(account, terms.month, balance.posted, nano_usd, now_us)
        balance.posted += nano_usd
        balance.held -= terms.amount_nano_usd
    accounts.post_to_platform(REVENUE_ACCOUNT, terms.month, nano_usd)


def _crossed(
    account: Account, month: str, before: int, nano_usd: int, now_us: int
) -> Iterator[dict[str, Any]]:
    for percent in account.alert_percents:
        if account.budget and before * 100 < account.budget * percent <= (before + nano_usd) * 100:
            yield {
                "account_id": account.id,
                "month": month,
                "percent": percent,
                "posted_nano_usd": before + nano_usd,
                "budget_nano_usd": account.budget,
                "created_us": now_us,
                "next_attempt_us": now_us,
            }


def _closed(terms: Terms, settlement: Settlement, now_us: int) -> dict[str, Any]:
    refused = settlement.outcome is Outcome.REFUSED
    return {
        "request_id": terms.request_id,
        "state": HoldState.VOIDED if refused else HoldState.SETTLED,
        "outcome": settlement.outcome,
        "closed_us": now_us,
    }


_CLAIM = lock_rows(
    SELECT_TERMS.where(holds.c.state == HoldState.HELD).order_by(holds.c.request_id), of=holds
)
_CLOSE = Write(Mode.UPDATE, holds, ("request_id",), ("state", "outcome", "closed_us"))
_CROSSED = Write(
    Mode.IGNORE,
    alerts,
    ("account_id", "month", "percent"),
    ("posted_nano_usd", "budget_nano_usd", "created_us", "next_attempt_us"),
)
