"""An organisation with teams, keys, limits and a price; to hold and settle for, on our clock."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from sqlalchemy import Table, insert, select, update

from serve_app.accounting.accounts import Balance
from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Charge, HoldRequest, Payer, Scope
from serve_app.accounting.ledger import Ledger
from serve_app.accounting.prices import PriceSheet
from serve_app.accounting.schema import accounts, balances, holds, lines, price_versions
from serve_app.accounting.tokens import Tokens
from serve_app.config import Accounting

# 2026-03-10 12:00 UTC.
NOON_US = 1_773_144_000 * MICROSECONDS
MONTH, DAY = "2026-03", "2026-03-10"
PROMPT = Tokens(text=100, image=20)
MAX_OUTPUT = 50
# What ``request`` holds by default: 120 x 2000 + 50 x 6000.
AMOUNT = 540_000
_SHEET = {"text": 2_000, "image": 2_000, "cached_text": 200, "cached_image": 200, "output": 6_000}
_IDS = count(1)


@dataclass
class Shop:
    """``payer`` is of key ``robot`` of team ``search`` of organisation ``acme``."""

    database: Database
    payer: Payer
    prices: PriceSheet
    now_us: int = NOON_US

    @classmethod
    async def open(cls, database: Database) -> Shop:
        async with database.write() as connection:
            values: dict[str, Any] = {
                **_SHEET,
                "model": "pixtral",
                "tier": "standard",
                "effective_us": 0,
            }
            made = await connection.execute(
                insert(price_versions).values(**values, created_us=0, created_by="test")
            )
            assert made.inserted_primary_key is not None
            prices = PriceSheet(id=made.inserted_primary_key[0], **values)
        shop = cls(database, Payer(0, 0, 0), prices)
        organisation = await shop.account(Scope.ORGANISATION, "acme", None)
        shop.payer = await shop.team_and_key("search", "robot", organisation)
        return shop

    def clock(self) -> int:
        return self.now_us

    def pass_s(self, seconds: float) -> None:
        self.now_us += int(seconds * MICROSECONDS)

    async def account(self, scope: Scope, name: str, parent_id: int | None) -> int:
        values = {"scope": scope, "name": name, "parent_id": parent_id, "created_us": 0}
        async with self.database.write() as connection:
            made = await connection.execute(insert(accounts).values(values))
        assert made.inserted_primary_key is not None
        account_id: int = made.inserted_primary_key[0]
        return account_id

    async def team_and_key(self, team: str, key: str, organisation: int | None = None) -> Payer:
        organisation = organisation or self.payer.organisation_id
        team_id = await self.account(Scope.TEAM, team, organisation)
        return Payer(await self.account(Scope.KEY, key, team_id), team_id, organisation)

    async def limit(self, account_id: int, **columns: Any) -> None:
        """Set columns of ``accounts``."""
        async with self.database.write() as connection:
            await connection.execute(
                update(accounts).where(accounts.c.id == account_id).values(columns)
            )

    def request(self, request_id: str | None = None, **changes: Any) -> HoldRequest:
        request = HoldRequest(
            request_id=request_id or f"request-{next(_IDS)}",
            payer=self.payer,
            prices=self.prices,
            tokens=PROMPT,
            max_output_tokens=MAX_OUTPUT,
        )
        return replace(request, **changes)

    @asynccontextmanager
    async def ledger(
        self, database: Database | None = None, owner: str = "gateway", **settings: Any
    ) -> AsyncIterator[Ledger]:
        ledger = Ledger(
            database or self.database, Accounting(**settings), owner=owner, clock=self.clock
        )
        await ledger.start()
        try:
            yield ledger
        finally:
            await ledger.close()

    async def rows(self, table: Table) -> list[Any]:
        async with self.database.read() as connection:
            return list(await connection.execute(select(table).order_by(*table.primary_key)))

    async def hold_row(self, request_id: str) -> Any:
        async with self.database.read() as connection:
            found = await connection.execute(select(holds).where(holds.c.request_id == request_id))
            return found.one_or_none()

    async def account_row(self, account_id: int) -> Any:
        async with self.database.read() as connection:
            found = await connection.execute(select(accounts).where(accounts.c.id == account_id))
            return found.one()

    async def balance(self, account_id: int, month: str = MONTH) -> Balance:
        async with self.database.read() as connection:
            found = await connection.execute(
                select(balances.c.posted_nano_usd, balances.c.held_nano_usd).where(
                    balances.c.account_id == account_id, balances.c.month == month
                )
            )
            return Balance(*(found.one_or_none() or (0, 0)))

    async def line_tokens(self, request_id: str) -> dict[tuple[int, str], int]:
        """By account and kind."""
        async with self.database.read() as connection:
            found = await connection.execute(select(lines).where(lines.c.request_id == request_id))
            return {(row.account_id, row.kind): row.tokens for row in found}


def charge(attempt: int = 0, choice: int = 0, **tokens: int) -> Charge:
    return Charge(attempt, choice, Tokens(**tokens))
