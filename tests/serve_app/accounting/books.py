"""Accounts to report on, written row by row: consistent double entry without a ledger at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.calendar import month_of
from serve_app.accounting.database import Database
from serve_app.accounting.hold import HoldState, Outcome
from serve_app.accounting.period import start_of
from serve_app.accounting.schema import (
    REVENUE_ACCOUNT,
    WASTE_ACCOUNT,
    accounts,
    adjustments,
    balances,
    holds,
    keys,
    lines,
    price_versions,
    tallies,
    usage_days,
)
from serve_app.accounting.tokens import Kind

PRICES = {"text": 2_000, "image": 2_000, "cached_text": 200, "cached_image": 200, "output": 6_000}
HOLD = 10_000_000


@dataclass(frozen=True)
class Key:
    """Account ids, and the public id ``pk_NAME``."""

    key_id: int
    team_id: int
    organisation_id: int
    public_id: str


class Books:
    def __init__(self, database: Database) -> None:
        self.database = database
        self._requests = 0
        self._prices: dict[str, int] = {}

    async def key(self, name: str, team: str = "search", organisation: str = "acme") -> Key:
        async with self.database.write() as connection:
            organisation_id = await self._account(connection, "organisation", organisation, None)
            team_id = await self._account(connection, "team", team, organisation_id)
            key_id = await self._account(connection, "key", name, team_id)
            public_id = f"pk_{name}"
            await connection.execute(
                insert(keys).values(
                    account_id=key_id,
                    public_id=public_id,
                    digest=bytes(32),
                    role="member",
                    models=[],
                    endpoints=[],
                    created_us=0,
                )
            )
        return Key(key_id, team_id, organisation_id, public_id)

    async def _account(
        self, connection: AsyncConnection, scope: str, name: str, parent_id: int | None
    ) -> int:
        known: int | None = await connection.scalar(
            select(accounts.c.id).where(
                accounts.c.scope == scope,
                accounts.c.name == name,
                accounts.c.parent_id == parent_id,
            )
        )
        if known is not None:
            return known
        values = {"scope": scope, "name": name, "parent_id": parent_id, "created_us": 0}
        statement = insert(accounts).values(values).returning(accounts.c.id)
        account_id: int = (await connection.execute(statement)).scalar_one()
        return account_id

    async def request(
        self,
        key: Key,
        day: str = "2026-11-03",
        *,
        waste: dict[str, int] | None = None,
        model: str = "pixtral",
        pictures: int = 0,
        group: str = "group-a",
        audited: bool = True,
        **tokens: int,
    ) -> str:
        """A request that was settled; ``tokens`` by kind are its team's. Returns its id."""
        request_id = await self.hold(key, day, model=model, pictures=pictures)
        async with self.database.write() as connection:
            for account_id, counts in ((key.team_id, tokens), (WASTE_ACCOUNT, waste or {})):
                for kind, count in counts.items():
                    await self._line(connection, request_id, key, account_id, kind, count)
            counted = {kind.value: 0 for kind in Kind}
            for counts in (tokens, waste or {}):
                for kind, count in counts.items():
                    counted[kind] += count
            await connection.execute(
                insert(tallies).values(
                    request_id=request_id, attempt=0, choice=0, group=group, **counted
                )
            )
            await self._release(connection, request_id, key, audited)
        return request_id

    async def hold(
        self, key: Key, day: str = "2026-11-03", *, model: str = "pixtral", pictures: int = 0
    ) -> str:
        """A request that runs."""
        self._requests += 1
        request_id = f"request-{self._requests}"
        at_us = start_of(day)
        async with self.database.write() as connection:
            await connection.execute(
                insert(holds).values(
                    request_id=request_id,
                    key_id=key.key_id,
                    team_id=key.team_id,
                    organisation_id=key.organisation_id,
                    model=model,
                    price_version=await self.price(connection, model),
                    month=month_of(at_us),
                    day=day,
                    amount_nano_usd=HOLD,
                    text_tokens=0,
                    image_tokens=0,
                    max_output_tokens=0,
                    pictures=pictures,
                    state=HoldState.HELD,
                    owner="gateway",
                    created_us=at_us,
                    lease_until_us=at_us,
                )
            )
            for account_id in (key.key_id, key.team_id, key.organisation_id):
                await self._book(connection, account_id, day[:7], held=HOLD)
                await self._count(connection, account_id, 1)
        return request_id

    async def refund(self, line_id: int, nano_usd: int, day: str, reason: str = "sorry") -> None:
        async with self.database.write() as connection:
            query = select(lines, accounts.c.parent_id).where(
                lines.c.id == line_id, accounts.c.id == lines.c.account_id
            )
            line = (await connection.execute(query)).one()
            await connection.execute(
                insert(adjustments).values(
                    line_id=line_id,
                    tokens=0,
                    nano_usd=nano_usd,
                    month=day[:7],
                    day=day,
                    reason=reason,
                    actor="key pk_admin",
                    posted_us=start_of(day),
                )
            )
            for account_id in (line.key_id, line.account_id, line.parent_id):
                await self._book(connection, account_id, day[:7], posted=-nano_usd)
            await self._book(connection, WASTE_ACCOUNT, day[:7], posted=nano_usd)

    async def price(self, connection: AsyncConnection, model: str) -> int:
        if model not in self._prices:
            values = {"model": model, "tier": "standard", **PRICES}
            self._prices[model] = (
                await connection.execute(
                    insert(price_versions)
                    .values(**values, effective_us=0, created_us=0, created_by="test")
                    .returning(price_versions.c.id)
                )
            ).scalar_one()
        return self._prices[model]

    async def _line(
        self,
        connection: AsyncConnection,
        request_id: str,
        key: Key,
        account_id: int,
        kind: str,
        count: int,
    ) -> None:
        query = select(holds).where(holds.c.request_id == request_id)
        hold = (await connection.execute(query)).one()
        amount = count * PRICES[Kind(kind).priced_as]
        common: dict[str, Any] = {
            "account_id": account_id,
            "key_id": key.key_id,
            "model": hold.model,
            "kind": kind,
            "day": hold.day,
        }
        await connection.execute(
            insert(lines).values(
                **common,
                request_id=request_id,
                attempt=0,
                choice=0,
                counter_account_id=REVENUE_ACCOUNT,
                price_version=hold.price_version,
                tokens=count,
                nano_usd=amount,
                month=hold.month,
                posted_us=start_of(hold.day),
            )
        )
        rolled = [usage_days.c[name] == value for name, value in common.items()]
        grown = {"tokens": usage_days.c.tokens + count, "nano_usd": usage_days.c.nano_usd + amount}
        updated = await connection.execute(update(usage_days).where(*rolled).values(**grown))
        if not updated.rowcount:
            await connection.execute(
                insert(usage_days).values(**common, tokens=count, nano_usd=amount)
            )
        charged = [account_id, REVENUE_ACCOUNT]
        if account_id != WASTE_ACCOUNT:
            charged += [key.key_id, key.organisation_id]
        for account in charged:
            await self._book(connection, account, hold.month, posted=amount)

    async def _release(
        self, connection: AsyncConnection, request_id: str, key: Key, audited: bool
    ) -> None:
        query = select(holds.c.month, holds.c.created_us).where(holds.c.request_id == request_id)
        month, at_us = (await connection.execute(query)).one()
        await connection.execute(
            update(holds)
            .where(holds.c.request_id == request_id)
            .values(
                state=HoldState.SETTLED,
                outcome=Outcome.COMPLETED,
                closed_us=at_us,
                audited_us=at_us if audited else None,
            )
        )
        for account_id in (key.key_id, key.team_id, key.organisation_id):
            await self._book(connection, account_id, month, held=-HOLD)
            await self._count(connection, account_id, -1)

    async def _book(
        self,
        connection: AsyncConnection,
        account_id: int,
        month: str,
        *,
        posted: int = 0,
        held: int = 0,
    ) -> None:
        row = (balances.c.account_id == account_id, balances.c.month == month)
        updated = await connection.execute(
            update(balances)
            .where(*row)
            .values(
                posted_nano_usd=balances.c.posted_nano_usd + posted,
                held_nano_usd=balances.c.held_nano_usd + held,
            )
        )
        if not updated.rowcount:
            await connection.execute(
                insert(balances).values(
                    account_id=account_id, month=month, posted_nano_usd=posted, held_nano_usd=held
                )
            )

    async def _count(self, connection: AsyncConnection, account_id: int, change: int) -> None:
        await connection.execute(
            update(accounts)
            .where(accounts.c.id == account_id)
            .values(concurrent=accounts.c.concurrent + change)
        )
