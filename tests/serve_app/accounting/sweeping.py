"""A store, an engine that can be told what it computed, and sweepers over both."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select, update

from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Charge, Outcome, Settlement
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.schema import WASTE_ACCOUNT, accounts, balances, holds, lines
from serve_app.accounting.settling import Closing, close_holds
from serve_app.accounting.sweeper import Sweeper, SweepReport
from serve_app.config import Accounting
from tests.serve_app.accounting.books import Books, Key
from tests.serve_app.accounting.fake_engines import FakeEngines

NOW_US = 1_762_200_000 * MICROSECONDS
PATIENCE_S = 600


class World:
    """A store, an engine, one key, and the time; gateways are names."""

    def __init__(self, database: Database, key: Key, books: Books) -> None:
        self.database = database
        self.key = key
        self.books = books
        self.engines = FakeEngines()
        self.now_us = NOW_US

    def sweeper(self, owner: str = "gateway-2", **options: Any) -> Sweeper:
        settings = Accounting(sweep_interval_s=0.01, audit_patience_s=PATIENCE_S)
        return Sweeper(
            self.database, self.engines, settings, owner=owner, clock=lambda: self.now_us, **options
        )

    async def sweep(self) -> SweepReport:
        return await self.sweeper().sweep()

    async def hold(self, *, expired: bool = True, disconnected: bool = False) -> str:
        request_id = await self.books.hold(self.key)
        await self.change(
            request_id,
            text_tokens=100,
            image_tokens=100,
            max_output_tokens=100,
            lease_until_us=self.now_us if expired else self.now_us + MICROSECONDS,
            disconnected_us=self.now_us - 1 if disconnected else None,
        )
        return request_id

    async def change(self, request_id: str, **values: Any) -> None:
        async with self.database.write() as connection:
            await connection.execute(
                update(holds).where(holds.c.request_id == request_id).values(values)
            )

    async def settle(self, request_id: str, outcome: Outcome, *charges: Charge) -> None:
        closing = Closing(request_id, Settlement(outcome, charges))
        async with self.database.write() as connection:
            assert await close_holds(connection, [closing], self.now_us)

    async def settled(self, outcome: Outcome, *charges: Charge) -> str:
        request_id = await self.hold(expired=False)
        await self.settle(request_id, outcome, *charges)
        return request_id

    async def row(self, request_id: str) -> Any:
        async with self.database.read() as connection:
            query = select(holds).where(holds.c.request_id == request_id)
            return (await connection.execute(query)).one()

    async def lines(self, request_id: str) -> dict[tuple[str, int, int, str], int]:
        """(who pays, attempt, choice, kind) → tokens"""
        async with self.database.read() as connection:
            rows = await connection.execute(select(lines).where(lines.c.request_id == request_id))
            who = {WASTE_ACCOUNT: "waste", self.key.team_id: "team"}
            return {
                (who[row.account_id], row.attempt, row.choice, row.kind): row.tokens for row in rows
            }

    async def is_at_rest(self) -> None:
        """Nothing is held, everything audited, and the books agree with the engine."""
        async with self.database.read() as connection:
            assert set(await connection.scalars(select(balances.c.held_nano_usd))) == {0}
            assert set(await connection.scalars(select(accounts.c.concurrent))) == {0}
            assert None not in set(await connection.scalars(select(holds.c.audited_us)))
            assert (await reconcile(connection)).differences == ()
