"""The migrations build the schema that the code uses, once, with its guards."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import Connection, Executable, delete, exc, insert, inspect, select, text, update

from serve_app.accounting import schema
from serve_app.accounting.database import Database, migrate, require_current
from serve_app.config import ConfigError

MONTH = "2026-03"
ROWS: dict[str, dict[str, object]] = {
    "accounts": {"id": 9, "scope": "team", "parent_id": 1, "name": "search", "created_us": 0},
    "price_versions": {
        **dict.fromkeys(("id", "effective_us", "created_us"), 1),
        **dict.fromkeys(("text", "image", "cached_text", "cached_image", "output"), 1),
        "model": "m",
        "tier": "standard",
        "created_by": "x",
    },
    "holds": {
        **dict.fromkeys(("key_id", "team_id", "organisation_id"), 9),
        "request_id": "r",
        "model": "m",
        "price_version": 1,
        "month": MONTH,
        "day": "d",
        **dict.fromkeys(("amount_nano_usd", "text_tokens", "image_tokens", "pictures"), 0),
        "max_output_tokens": 0,
        "state": "held",
        "owner": "g",
        "created_us": 0,
        "lease_until_us": 0,
    },
    "lines": {
        "id": 1,
        "request_id": "r",
        "attempt": 0,
        "choice": 0,
        "account_id": 9,
        "key_id": 9,
        "counter_account_id": 2,
        "kind": "text",
        "model": "m",
        "price_version": 1,
        "tokens": 1,
        "nano_usd": 1,
        "month": MONTH,
        "day": "d",
        "posted_us": 0,
    },
    "adjustments": {
        "line_id": 1,
        "tokens": 1,
        "nano_usd": 1,
        "month": MONTH,
        "day": "d",
        "reason": "r",
        "actor": "a",
        "posted_us": 0,
    },
    "audit_log": {"at_us": 0, "actor": "a", "action": "b", "subject": "c", "detail": {}},
    "months": {"month": MONTH, "closed_us": 0, "closed_by": "a", "totals": {}},
}


def shape(connection: Connection) -> dict[str, Any]:
    """Everything that the store knows of its tables, in an order of its own."""
    inspector = inspect(connection)
    return {
        table: {
            "columns": {
                column["name"]: (repr(column["type"]), column["nullable"], column["default"])
                for column in inspector.get_columns(table)
            },
            "key": inspector.get_pk_constraint(table),
            "foreign": sorted(map(repr, inspector.get_foreign_keys(table))),
            "unique": sorted(map(repr, inspector.get_unique_constraints(table))),
            "checks": sorted(map(repr, inspector.get_check_constraints(table))),
            "indexes": sorted(map(index_shape, inspector.get_indexes(table))),
        }
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def index_shape(index: Any) -> str:
    conditions = {name: str(value) for name, value in index.pop("dialect_options", {}).items()}
    return f"{index} {conditions}"


async def fill(database: Database, *, close: bool = False) -> None:
    async with database.write() as connection:
        for table, row in ROWS.items():
            if table == "months" and not close:
                row = row | {"month": "2026-01"}
            await connection.execute(insert(schema.metadata.tables[table]), row)


async def test_the_migrated_schema_is_the_one_that_the_code_uses(database):
    async with database.read() as connection:
        migrated = await connection.run_sync(shape)
    async with database.write() as connection:
        for trigger in ("lines", "adjustments", "holds"):
            on = f" ON {trigger}" if database.dialect == "postgresql" else ""
            await connection.execute(text(f"DROP TRIGGER {trigger}_month_open{on}"))
        await connection.run_sync(schema.metadata.drop_all)
        await connection.run_sync(schema.metadata.create_all)
        declared = await connection.run_sync(shape)
    assert migrated == declared


async def test_teams_of_the_first_release_have_no_weight(database):
    await fill(database)
    query = select(schema.accounts.c.weight).where(schema.accounts.c.id == 9)
    async with database.read() as connection:
        assert (await connection.execute(query)).scalar_one() is None
    with pytest.raises(exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(update(schema.accounts).values(weight=-1))


async def test_what_was_counted_before_drafts_were_had_none(database):
    row = {"request_id": "r", "attempt": 1, "choice": 0, "group": "g", "output": 7}
    async with database.write() as connection:
        await connection.execute(insert(schema.tallies), row)
    async with database.read() as connection:
        assert await connection.scalar(select(schema.tallies.c.rejected_draft)) == 0


async def test_the_platforms_accounts_are_there(database):
    query = select(schema.accounts.c.id, schema.accounts.c.scope).order_by("id")
    async with database.read() as connection:
        found = (await connection.execute(query)).all()
    assert found == [(schema.WASTE_ACCOUNT, "waste"), (schema.REVENUE_ACCOUNT, "revenue")]


async def test_ids_go_on_after_the_platforms_accounts(database):
    row = {"scope": "organisation", "name": "acme", "created_us": 0}
    async with database.write() as connection:
        made = await connection.execute(insert(schema.accounts).values(row))
    assert made.inserted_primary_key == (3,)


async def test_no_two_organisations_share_a_name(database):
    row = {"scope": "organisation", "name": "acme", "created_us": 0}
    async with database.write() as connection:
        await connection.execute(insert(schema.accounts), row)
    with pytest.raises(exc.IntegrityError):
        async with database.write() as connection:
            await connection.execute(insert(schema.accounts), row)


@pytest.mark.parametrize("name", schema.APPEND_ONLY)
async def test_what_was_written_is_never_changed_or_deleted(database, name):
    await fill(database, close=name == "months")
    table = schema.metadata.tables[name]
    column = next(column for column in table.columns if not column.primary_key)
    attempts: list[Executable] = [update(table).values({column: column}), delete(table)]
    if database.dialect == "postgresql":
        attempts.append(text(f"TRUNCATE {name} CASCADE"))
    else:
        # Replacing is deleting, and would not be seen by a trigger on its own.
        same = {key.name: 1 for key in table.primary_key}
        attempts.append(insert(table).prefix_with("OR REPLACE").values(same | ROWS[name]))
    for attempt in attempts:
        with pytest.raises(exc.IntegrityError, match="append-only"):
            async with database.write() as connection:
                await connection.execute(attempt)


@pytest.mark.parametrize("name", schema.OF_A_MONTH)
async def test_a_closed_month_takes_nothing_more(database, name):
    await fill(database, close=True)
    row = ROWS[name] | ({"request_id": "another"} if name == "holds" else {"id": 2})
    row |= {"attempt": 1} if name == "lines" else {}
    table = schema.metadata.tables[name]
    with pytest.raises(exc.IntegrityError, match="closed"):
        async with database.write() as connection:
            await connection.execute(insert(table), row)
    async with database.write() as connection:
        await connection.execute(insert(table), row | {"month": "2026-04"})


async def test_migrating_again_changes_nothing(store_url):
    database = Database.open(store_url)
    await fill(database)
    await asyncio.to_thread(migrate, store_url)
    async with database.read() as connection:
        assert await connection.scalar(select(schema.lines.c.tokens)) == 1
    await database.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/ledger.db"
        return
    server = request.getfixturevalue("postgres")
    yield server.create("empty")
    server.drop("empty")


def test_two_processes_migrate_one_store_at_once(empty_url):
    program = "import sys; from serve_app.accounting.database import migrate; migrate(sys.argv[1])"
    processes = [subprocess.Popen([sys.executable, "-c", program, empty_url]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]


async def test_a_store_that_was_not_migrated_is_refused(empty_url):
    database = Database.open(empty_url)
    async with database.write():
        pass
    with pytest.raises(ConfigError, match="nothing"):
        await require_current(database)
    await asyncio.to_thread(migrate, empty_url)
    await require_current(database)
    await database.close()
