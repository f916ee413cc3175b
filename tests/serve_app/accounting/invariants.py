"""What must be true of an organisation's accounts, from the rows, by sums of our own."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.accounts import Balance
from serve_app.accounting.hold import Hold, HoldState, Settlement
from serve_app.accounting.schema import (
    REVENUE_ACCOUNT,
    WASTE_ACCOUNT,
    accounts,
    adjustments,
    balances,
    holds,
    lines,
    usage_days,
)
from serve_app.accounting.tokens import Tokens


@dataclass(frozen=True)
class Books:
    """All rows of one organisation, in one snapshot."""

    accounts: dict[int, Any]
    balances: dict[tuple[int, str], Balance]
    holds: list[Any]
    lines: list[Any]
    refunds: list[Any]
    usage: list[Any]

    @classmethod
    async def read(cls, connection: AsyncConnection, organisation_id: int, ids: list[int]) -> Books:
        async def rows(query: Select[Any]) -> list[Any]:
            return list(await connection.execute(query))

        ours = holds.c.organisation_id == organisation_id
        refunds = (
            select(adjustments, lines.c.key_id, lines.c.account_id, lines.c.nano_usd.label("most"))
            .join(lines, lines.c.id == adjustments.c.line_id)
            .join(holds, holds.c.request_id == lines.c.request_id)
        )
        return cls(
            accounts={
                row.id: row for row in await rows(select(accounts).where(accounts.c.id.in_(ids)))
            },
            balances={
                (row.account_id, row.month): Balance(row.posted_nano_usd, row.held_nano_usd)
                for row in await rows(select(balances).where(balances.c.account_id.in_(ids)))
            },
            holds=await rows(select(holds).where(ours)),
            lines=await rows(select(lines).join(holds).where(ours)),
            refunds=await rows(refunds.where(ours)),
            usage=await rows(select(usage_days).where(usage_days.c.key_id.in_(ids))),
        )

    def check(
        self, organisation_id: int, held: list[Hold], closed: list[tuple[Hold, Settlement]]
    ) -> None:
        """Against what the test itself has seen: holds that are open, and the settlement that was
        first for each of the others."""
        self._check_balances(organisation_id)
        self._check_lines(closed)
        open_ids = {row.request_id for row in self.holds if row.state == HoldState.HELD}
        assert open_ids == {hold.request_id for hold in held}

    def _check_balances(self, organisation_id: int) -> None:
        """Balances are lines less refunds and open holds; key = team = organisation sums; never
        above a budget."""
        expected: dict[tuple[int, str], Balance] = defaultdict(Balance)
        running: Counter[int] = Counter()
        for row in self.holds:
            if row.state == HoldState.HELD:
                for id in (row.key_id, row.team_id, row.organisation_id):
                    expected[id, row.month].held += row.amount_nano_usd
                    running[id] += 1
        for sign, rows in ((1, self._team_lines()), (-1, self.refunds)):
            for row in rows:
                for id in (row.key_id, row.account_id, organisation_id):
                    expected[id, row.month].posted += sign * row.nano_usd
        for key in {*expected, *self.balances}:
            assert self.balances.get(key, Balance()) == expected[key], key
        for id, account in self.accounts.items():
            assert account.concurrent == running[id]
        for (id, _), balance in self.balances.items():
            budget = self.accounts[id].budget_nano_usd
            assert budget is None or balance.posted + balance.held <= budget

    def _check_lines(self, closed: list[tuple[Hold, Settlement]]) -> None:
        """Charged once, by the first settlement; rolled up; never refunded by more."""
        charged: Counter[str] = Counter()
        for row in self._team_lines():
            charged[row.request_id] += row.nano_usd
        for hold, settlement in closed:
            spent = sum((charge.tokens for charge in settlement.charges), Tokens())
            assert charged[hold.request_id] == hold.request.prices.cost(spent)
        assert set(charged) <= {hold.request_id for hold, _ in closed}
        refunded: Counter[int] = Counter()
        for row in self.refunds:
            refunded[row.line_id] += row.nano_usd
            assert refunded[row.line_id] <= row.most
        rolled = Counter[tuple[Any, ...]]()
        for row in self.lines:
            rolled[row.day, row.account_id, row.key_id, row.kind] += row.nano_usd
        assert rolled == {
            (row.day, row.account_id, row.key_id, row.kind): row.nano_usd for row in self.usage
        }
        assert {row.counter_account_id for row in self.lines} <= {REVENUE_ACCOUNT}

    def _team_lines(self) -> list[Any]:
        return [row for row in self.lines if row.account_id != WASTE_ACCOUNT]
