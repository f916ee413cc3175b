"""How accounts stand in a month: what is posted and held, and what is left of the budget."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.hold import Scope
from serve_app.accounting.schema import accounts, balances


@dataclass(frozen=True, slots=True)
class Standing:
    """Nano-dollars. ``budget`` None is no limit; ``concurrent`` requests are at work now."""

    account_id: int
    month: str
    posted_nano_usd: int
    held_nano_usd: int
    budget_nano_usd: int | None
    concurrent: int

    @property
    def remaining_nano_usd(self) -> int | None:
        """What another request may cost at most; never below 0."""
        if self.budget_nano_usd is None:
            return None
        return max(0, self.budget_nano_usd - self.posted_nano_usd - self.held_nano_usd)


async def standings(
    connection: AsyncConnection, month: str, scopes: Collection[Scope]
) -> dict[int, Standing]:
    """Of every account of these scopes, by its id; nothing posted is 0."""
    of_month = and_(balances.c.account_id == accounts.c.id, balances.c.month == month)
    query = (
        select(
            accounts.c.id,
            func.coalesce(balances.c.posted_nano_usd, 0).label("posted"),
            func.coalesce(balances.c.held_nano_usd, 0).label("held"),
            accounts.c.budget_nano_usd,
            accounts.c.concurrent,
        )
        .select_from(accounts.outerjoin(balances, of_month))
        .where(accounts.c.scope.in_(sorted(scopes)))
        .order_by(accounts.c.id)
    )
    return {
        row.id: Standing(row.id, month, row.posted, row.held, row.budget_nano_usd, row.concurrent)
        for row in await connection.execute(query)
    }
