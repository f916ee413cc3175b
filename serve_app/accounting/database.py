"""The ledger's store: SQLite (embedded, one gateway) or PostgreSQL (any number), told apart here.

Every transaction of the accounts goes through ``write`` or ``read``. On SQLite a writer takes the
file's write lock at once (BEGIN IMMEDIATE), so that what it has read cannot change under it; on
PostgreSQL it runs READ COMMITTED and locks the rows it is about to change (``lock_rows``). A
commit is durable when it returns: SQLite's log is synced, and nothing is kept in memory.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import asyncpg
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Select, Table, event, exc, make_url
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from serve_app.config import ConfigError
from serve_app.errors import LedgerUnavailable

_MIGRATIONS = Path(__file__).parent / "migrations"
_READERS = 4
_POSTGRES_WRITERS = 4

# Which failures pass by themselves: everything else is a bug, and is shown as one.
_SQLITE_OUTAGES = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    )
)
# Classes of SQLSTATE: connection, authorisation, rolled back (deadlock), resources, operator,
# system; then: idle too long, a lock not to be had.
_POSTGRES_OUTAGES = ("08", "28", "40", "53", "57", "58", "25P03", "55P03")

Row = TypeVar("Row", bound=tuple[Any, ...])


class Database:
    """A store, connected to at first use. Both context managers raise ``LedgerUnavailable`` when
    it cannot be reached, does not answer in time, or loses the connection: what was being written
    then may or may not have been committed."""

    def __init__(self, url: URL, timeout_s: float) -> None:
        self.dialect: Literal["sqlite", "postgresql"]
        if url.get_backend_name() == "sqlite":
            self.dialect = "sqlite"
            self._writer = _sqlite(url, timeout_s, connections=1, begin="BEGIN IMMEDIATE")
            self._reader = _sqlite(url, timeout_s, connections=_READERS, begin="BEGIN")
        else:
            self.dialect = "postgresql"
            self._writer = _postgres(url, timeout_s, _POSTGRES_WRITERS, "READ COMMITTED")
            self._reader = _postgres(url, timeout_s, _READERS, "REPEATABLE READ")

    @classmethod
    def open(cls, url: str, *, password: str | None = None, timeout_s: float = 10.0) -> Database:
        """``sqlite:////path/to/file`` or ``postgresql://user@host/name``, the password apart.

        Args:
            timeout_s: for a connection, for a statement, and for the lock of an SQLite file.
        """
        parsed = make_url(url)
        if password is not None:
            parsed = parsed.set(password=password)
        return cls(parsed, timeout_s)

    def write(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One transaction, committed unless the block raises."""
        return _outages_named(self._writer.begin())

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """One snapshot; writing is refused by the store."""
        return _outages_named(self._reader.begin())

    async def close(self) -> None:
        await self._writer.dispose()
        await self._reader.dispose()


def lock_rows(select: Select[Row], *, of: Table | None = None) -> Select[Row]:
    """Keep the selected rows (``of`` one table) from other writers until the transaction ends.

    The statement's ORDER BY is the order in which they are locked. SQLite's writers are alone
    already. On PostgreSQL new lines may go on referring to a locked account (NO KEY UPDATE).
    """
    return select.with_for_update(key_share=True, of=of)


async def freeze_tables(connection: AsyncConnection, names: Iterable[str]) -> None:
    """Wait for who writes these tables (of schema.py), and keep others from it until the commit.

    SQLite's writers are alone already.
    """
    if connection.dialect.name == "postgresql":
        await connection.exec_driver_sql(f"LOCK TABLE {', '.join(names)} IN SHARE MODE")


def padded(values: Sequence[Any]) -> list[Any]:
    """The distinct values of an IN list, the last one repeated up to a power of two, so that few
    statements of different length are ever prepared."""
    distinct = sorted(set(values))
    return distinct + distinct[-1:] * ((1 << (len(distinct) - 1).bit_length()) - len(distinct))


def migrate(url: str, password: str | None = None) -> None:
    """Bring the schema to head. Idempotent; two at once wait for each other. Not for use inside
    a running event loop."""
    asyncio.run(_migrate(url, password))


async def require_current(database: Database) -> None:
    """Refuse to work on a schema that is not this version's: ``ConfigError`` says what to do."""
    head = ScriptDirectory(str(_MIGRATIONS)).get_current_head()
    async with database.read() as connection:
        found = await connection.run_sync(_revision)
    if found != head:
        raise ConfigError(
            f"accounting.database_url: the schema is at {found or 'nothing'}, this version needs "
            f"{head}; `pixtral up` migrates it"
        )


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


async def _migrate(url: str, password: str | None) -> None:
    database = Database.open(url, password=password, timeout_s=60.0)
    path = make_url(url).database
    if database.dialect == "sqlite" and path:
        # Digests of keys and everybody's bills: for this user's eyes.
        Path(path).touch(mode=0o600)
    try:
        async with database.write() as connection:
            if database.dialect == "postgresql":
                await connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7042)")
            await connection.run_sync(_upgrade)
    finally:
        await database.close()


def _upgrade(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _sqlite(url: URL, timeout_s: float, *, connections: int, begin: str) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
        # An error shows its statement and not what was bound to it: digests, URLs, reasons.
        hide_parameters=True,
        connect_args={"timeout": timeout_s},
    )
    settings = {
        "synchronous": "FULL",
        "foreign_keys": "ON",
        # INSERT OR REPLACE deletes: let the triggers see it.
        "recursive_triggers": "ON",
        **({"journal_mode": "WAL"} if begin == "BEGIN IMMEDIATE" else {"query_only": "ON"}),
    }

    def prepare(connection: Any, _record: object) -> None:
        # The driver would begin transactions by itself, and too late.
        connection.isolation_level = None
        cursor = connection.cursor()
        for name, value in settings.items():
            cursor.execute(f"PRAGMA {name} = {value}")
        cursor.close()

    def give_up_lock(connection: Any, *_: object) -> None:
        # Closed with a statement unfinished, as a cancelled one is, SQLite would keep the write
        # lock until the statement is collected as garbage.
        with suppress(sqlite3.Error):
            connection.rollback()

    event.listen(engine.sync_engine, "connect", prepare)
    event.listen(engine.sync_engine, "invalidate", give_up_lock)
    _on_begin(engine, lambda connection: connection.exec_driver_sql(begin))
    return engine


def _on_begin(engine: AsyncEngine, act: Callable[[Connection], object]) -> None:
    event.listen(engine.sync_engine, "begin", act)


def _postgres(url: URL, timeout_s: float, connections: int, isolation: str) -> AsyncEngine:
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        isolation_level=isolation,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=timeout_s,
        # An error shows its statement and not what was bound to it: digests, URLs, reasons.
        hide_parameters=True,
        # A reader finds a lost connection before it uses it; writers are repeated anyway.
        pool_pre_ping=isolation == "REPEATABLE READ",
        connect_args={
            "timeout": timeout_s,
            "command_timeout": timeout_s,
            "server_settings": {
                "application_name": "pixtral",
                # A gateway that froze inside a transaction must not keep its locks.
                "idle_in_transaction_session_timeout": str(int(timeout_s * 1000)),
            },
        },
    )
    if isolation == "REPEATABLE READ":
        return engine.execution_options(postgresql_readonly=True)
    return engine


@asynccontextmanager
async def _outages_named(
    transaction: AbstractAsyncContextManager[AsyncConnection],
) -> AsyncIterator[AsyncConnection]:
    try:
        async with transaction as connection:
            yield connection
    except (exc.SQLAlchemyError, asyncpg.PostgresError, OSError, TimeoutError) as error:
        if not _is_outage(error):
            raise
        raise LedgerUnavailable("the accounts cannot be reached; nothing was begun") from error


def _is_outage(error: BaseException) -> bool:
    if not isinstance(error, exc.DBAPIError):
        # A pool or a socket that timed out, a connection refused, a server still starting.
        return isinstance(error, exc.TimeoutError) or not isinstance(error, exc.SQLAlchemyError)
    if error.connection_invalidated or isinstance(error, exc.InterfaceError):
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        # The low byte is the code, what is above it the detail.
        return sqlite_code & 0xFF in _SQLITE_OUTAGES
    return str(getattr(error.orig, "sqlstate", None) or "").startswith(_POSTGRES_OUTAGES)
