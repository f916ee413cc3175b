"""INSERT … ON CONFLICT: the same in both stores, but not in SQLAlchemy's names for it."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection


def insert(connection: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """To be followed by ``values`` and ``on_conflict_do_update`` or ``on_conflict_do_nothing``."""
    return insert_on(connection.dialect.name, table)


def insert_on(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
