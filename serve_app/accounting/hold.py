"""What is reserved before a request may cost anything, and how it ends.

                ┌─► settled   lines are written, what was not used is released
    (hold) held ┤
                └─► voided    nothing was used; everything is released

A hold ends once: whoever ends it claims its row first. ``audited`` follows later, when the lines
have been compared with the engine's journal and any difference was booked as waste (sweeper.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.tokens import Tokens


class Scope(StrEnum):
    """A kind of account. Budgets and rates are checked on the first three, in this order."""

    KEY = "key"
    TEAM = "team"
    ORGANISATION = "organisation"
    WASTE = "waste"
    REVENUE = "revenue"


class HoldState(StrEnum):
    HELD = "held"
    SETTLED = "settled"
    VOIDED = "voided"


class Outcome(StrEnum):
    """Why a hold ended, and so who pays."""

    COMPLETED = "completed"  # the team: everything
    DISCONNECTED = "disconnected"  # the team: prompt and what was generated until the abort
    FAILED = "failed"  # nobody: what was computed becomes waste
    REFUSED = "refused"  # nobody: nothing was computed
    RECOVERED = "recovered"  # its gateway died; settled from the journal by the sweeper


@dataclass(frozen=True, slots=True)
class Payer:
    """The three accounts of a request, by id."""

    key_id: int
    team_id: int
    organisation_id: int

    @property
    def account_ids(self) -> tuple[int, int, int]:
        """In the order of ``Scope``; rows are locked in ascending order of id."""
        return (self.key_id, self.team_id, self.organisation_id)


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """What a request may cost at most, known exactly but for the length of its answer.

    Attributes:
        tokens: of the prompt; how many of them are cached is known only when it is computed.
        max_output_tokens: over all choices.
    """

    request_id: str
    payer: Payer
    prices: PriceSheet
    tokens: Tokens
    max_output_tokens: int
    pictures: int = 0

    @property
    def amount_nano_usd(self) -> int:
        most = Tokens(text=self.tokens.text, image=self.tokens.image, output=self.max_output_tokens)
        return self.prices.most(most)


@dataclass(frozen=True, slots=True)
class Allowance:
    """One rate limit after a request was admitted, for ``x-ratelimit-*``: the tightest of scopes.

    ``reset_s`` is until the bucket is full again.
    """

    limit: int
    remaining: int
    reset_s: float


@dataclass(frozen=True, slots=True)
class Hold:
    """A durable reservation. ``month`` and ``day`` (UTC) and the prices are those of admission."""

    request: HoldRequest
    month: str
    day: str
    created_us: int
    requests: Allowance | None = None
    tokens: Allowance | None = None

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def amount_nano_usd(self) -> int:
        return self.request.amount_nano_usd


@dataclass(frozen=True, slots=True)
class Charge:
    """What one choice of one attempt used; the prompt is charged with choice 0."""

    attempt: int
    choice: int
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a hold ends. Only ``COMPLETED``, ``DISCONNECTED`` and ``RECOVERED`` charge the team."""

    outcome: Outcome
    charges: tuple[Charge, ...] = ()
