"""Whoever is cancelled in a transaction leaves the store to the others at once.

Ray Serve cancels requests whose clients hang up, wherever they are.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import select

from serve_app.accounting.database import Database
from serve_app.accounting.schema import leases
from serve_app.accounting.upsert import insert

ROW = {"name": "chores", "owner": "me", "until_us": 1}


async def write(database: Database) -> None:
    async with database.write() as connection:
        statement = insert(connection, leases).values(ROW)
        await connection.execute(
            statement.on_conflict_do_update(index_elements=["name"], set_=ROW).returning(
                leases.c.owner
            )
        )


async def read(database: Database) -> None:
    async with database.read() as connection:
        await connection.execute(select(leases))


async def test_a_cancelled_transaction_keeps_nobody_waiting(store_url: str) -> None:
    database = Database.open(store_url, timeout_s=5)
    await write(database)
    # Kept, as a log or a debugger might: what they refer to is not collected.
    cancelled: list[BaseException | None] = []
    try:
        for step in range(60):
            tasks = [asyncio.create_task(work(database)) for work in (write, read)]
            await asyncio.sleep(step / 20_000)
            for task in tasks:
                task.cancel()
            cancelled += await asyncio.gather(*tasks, return_exceptions=True)
            async with asyncio.timeout(1):
                await write(database)
                await read(database)
    finally:
        await database.close()
    assert any(isinstance(error, asyncio.CancelledError) for error in cancelled)
