"""Transactions on both stores: durable, exclusive where they must be, typed when they fail."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import exc, func, insert, select
from sqlalchemy.engine import make_url

from serve_app.accounting import schema
from serve_app.accounting.database import Database, lock_rows, padded
from serve_app.errors import LedgerUnavailable


def lease(name: str) -> dict[str, object]:
    return {"name": name, "owner": "gateway", "until_us": 0}


async def leases(database: Database) -> int:
    async with database.read() as connection:
        found = await connection.scalar(select(func.count()).select_from(schema.leases))
    assert found is not None
    return found


async def test_a_transaction_is_kept_whole_or_not_at_all(database):
    async with database.write() as connection:
        await connection.execute(insert(schema.leases), lease("kept"))

    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(insert(schema.leases), lease("dropped"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fail()
    assert await leases(database) == 1


async def test_a_reader_cannot_write(database):
    with pytest.raises(exc.DBAPIError):
        async with database.read() as connection:
            await connection.execute(insert(schema.leases), lease("sneaked in"))
    assert await leases(database) == 0


async def test_a_reader_sees_one_moment(database):
    async with database.read() as connection:
        query = select(func.count()).select_from(schema.leases)
        before = await connection.scalar(query)
        async with database.write() as writer:
            await writer.execute(insert(schema.leases), lease("later"))
        assert await connection.scalar(query) == before == 0


async def test_what_a_writer_has_read_and_locked_does_not_change_under_it(database):
    """Read, think, write: twenty at once lose no update."""
    account = select(schema.accounts.c.concurrent).where(schema.accounts.c.id == 1)

    async def increment() -> None:
        async with database.write() as connection:
            found = (await connection.execute(lock_rows(account))).scalar_one()
            await asyncio.sleep(0)
            await connection.execute(
                schema.accounts.update().where(schema.accounts.c.id == 1), {"concurrent": found + 1}
            )

    await asyncio.gather(*(increment() for _ in range(20)))
    async with database.read() as connection:
        assert await connection.scalar(account) == 20


async def test_two_gateways_overlap_on_one_store(store_url):
    """As during a rolling update: the second waits for the first, nobody fails."""
    old, new = Database.open(store_url), Database.open(store_url)

    async def fill(database: Database, prefix: str) -> None:
        for number in range(20):
            async with database.write() as connection:
                await connection.execute(insert(schema.leases), lease(f"{prefix}-{number}"))

    await asyncio.gather(fill(old, "old"), fill(new, "new"))
    assert await leases(old) == await leases(new) == 40
    await old.close()
    await new.close()


async def test_a_cancelled_writer_leaves_no_lock(database):
    async def write_for_ever() -> None:
        async with database.write() as connection:
            await connection.execute(insert(schema.leases), lease("never"))
            await asyncio.sleep(3600)

    task = asyncio.create_task(write_for_ever())
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with database.write() as connection:
        await connection.execute(insert(schema.leases), lease("after"))
    assert await leases(database) == 1


async def test_a_bug_is_shown_as_one_and_not_as_an_outage(database):
    async with database.write() as connection:
        await connection.execute(insert(schema.leases), lease("same"))
    with pytest.raises(exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert(schema.leases), lease("same"))
    with pytest.raises(exc.DBAPIError):
        async with database.read() as connection:
            await connection.exec_driver_sql("SELECT nothing FROM nowhere")


async def test_an_error_does_not_show_what_was_bound(database):
    async with database.write() as connection:
        await connection.execute(insert(schema.leases), lease("a-secret"))
    with pytest.raises(exc.IntegrityError) as clash:
        async with database.write() as connection:
            await connection.execute(insert(schema.leases), lease("a-secret"))
    assert "[SQL parameters hidden" in str(clash.value)


async def test_sqlite_keeps_its_log_synced(sqlite_url):
    database = Database.open(sqlite_url)
    async with database.write() as connection:
        for pragma, expected in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)):
            found = await connection.exec_driver_sql(f"PRAGMA {pragma}")
            assert found.scalar_one() == expected
    await database.close()


async def test_a_locked_sqlite_file_is_an_outage(sqlite_url):
    path = make_url(sqlite_url).database
    assert path is not None
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    database = Database.open(sqlite_url, timeout_s=0.1)
    with pytest.raises(LedgerUnavailable):
        async with database.write():
            pass
    other.execute("ROLLBACK")
    async with database.write():
        pass
    other.close()
    await database.close()


async def test_an_sqlite_file_that_cannot_be_opened_is_an_outage(tmp_path: Path):
    database = Database.open(f"sqlite:///{tmp_path}/absent/ledger.db")
    with pytest.raises(LedgerUnavailable):
        async with database.read():
            pass
    await database.close()
    # The driver's thread reports its own end to this loop, and nobody can wait for that.
    await asyncio.sleep(0.1)


async def test_a_paused_server_is_an_outage_and_not_a_wait_for_ever(postgres, postgres_url):
    database = Database.open(postgres_url, timeout_s=0.3)
    assert await leases(database) == 0
    with postgres.paused():
        for transaction in (database.read, database.write):
            with pytest.raises(LedgerUnavailable):
                async with transaction() as connection:
                    await connection.execute(select(schema.leases))
    assert await leases(database) == 0
    await database.close()


async def test_a_killed_server_is_an_outage_until_it_is_back(postgres, postgres_url):
    database = Database.open(postgres_url, timeout_s=2.0)
    async with database.write() as connection:
        await connection.execute(insert(schema.leases), lease("durable"))
    postgres.kill()
    try:
        for transaction in (database.read, database.write):
            with pytest.raises(LedgerUnavailable):
                async with transaction() as connection:
                    await connection.execute(select(schema.leases))
    finally:
        postgres.start()
    assert await leases(database) == 1
    await database.close()


async def test_the_password_is_given_apart_from_the_url(postgres_url):
    url = make_url(postgres_url)
    bare = url.set(password=None).render_as_string(hide_password=False)
    database = Database.open(bare, password=str(url.password))
    assert await leases(database) == 0
    refused = Database.open(bare, password="wrong")
    with pytest.raises(LedgerUnavailable):
        await leases(refused)
    await database.close()
    await refused.close()


@pytest.mark.parametrize(
    ("values", "expected"), [([3], [3]), ([2, 1], [1, 2]), ([5, 1, 3, 1], [1, 3, 5, 5])]
)
def test_lists_are_padded_to_a_power_of_two(values, expected):
    assert padded(values) == expected
