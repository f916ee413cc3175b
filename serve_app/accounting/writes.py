"""What a transaction writes, gathered while it decides and sent together.

A round trip to PostgreSQL costs more than what it asks for: there, everything goes in one
statement, a CTE for each kind of write, its rows as JSON. SQLite, which is in this process and
knows no such CTEs, takes one statement after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    CTE,
    Executable,
    Table,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

Row = Mapping[str, Any]


class Mode(Enum):
    """Of a row whose key is there already: an error, left alone, replaced, added to. UPDATE is of
    rows that are there."""

    INSERT = auto()
    IGNORE = auto()
    REPLACE = auto()
    ADD = auto()
    UPDATE = auto()


@dataclass(frozen=True, slots=True)
class Write:
    """``values`` are the columns that are not of the key."""

    mode: Mode
    table: Table
    key: tuple[str, ...]
    values: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.key + self.values


class Writes:
    """Two writes of one transaction may not touch the same row."""

    def __init__(self) -> None:
        self._rows: dict[Write, list[Row]] = {}

    def add(self, write: Write, rows: Iterable[Row]) -> None:
        """Rows hold every column of ``write``, and nothing else."""
        if new := list(rows):
            self._rows.setdefault(write, []).extend(new)

    async def send(self, connection: AsyncConnection) -> None:
        if not self._rows:
            return
        if connection.dialect.name == "postgresql":
            rows = enumerate(self._rows.values())
            values = {_name(number): json.dumps(each) for number, each in rows}
            await connection.execute(_together(tuple(self._rows)), values)
            return
        for write, each in self._rows.items():
            await connection.execute(_alone(write), [_bound(row) for row in each])


# Statements are built once: SQLAlchemy then finds them compiled.


@cache
def _together(writes: tuple[Write, ...]) -> Executable:
    return select(literal(1)).add_cte(*(_cte(write, number) for number, write in enumerate(writes)))


def _cte(write: Write, number: int) -> CTE:
    table = write.table
    rows = (
        func.jsonb_to_recordset(cast(bindparam(_name(number), type_=Text), JSONB))
        .table_valued(*(column(name, table.c[name].type) for name in write.columns))
        .render_derived(name=f"new_{number}", with_types=True)
    )
    if write.mode is Mode.UPDATE:
        changed = (
            update(table)
            .where(*(table.c[name] == rows.c[name] for name in write.key))
            .values({name: rows.c[name] for name in write.values})
        )
        return changed.cte(f"write_{number}")
    made = select(*(rows.c[name] for name in write.columns))
    inserted = postgresql.insert(table).from_select(write.columns, made, include_defaults=False)
    return _resolved(inserted, write).cte(f"write_{number}")


@cache
def _alone(write: Write) -> Executable:
    table = write.table
    bound = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in write.columns}
    if write.mode is Mode.UPDATE:
        return (
            update(table)
            .where(*(table.c[name] == bound[name] for name in write.key))
            .values({name: bound[name] for name in write.values})
        )
    return _resolved(sqlite.insert(table).values(bound), write)


_Insert = TypeVar("_Insert", postgresql.Insert, sqlite.Insert)


def _resolved(inserted: _Insert, write: Write) -> _Insert:
    """With what becomes of a row that is there already."""
    if write.mode is Mode.INSERT:
        return inserted
    if write.mode is Mode.IGNORE:
        return inserted.on_conflict_do_nothing()
    new: dict[str, Any] = {name: inserted.excluded[name] for name in write.values}
    if write.mode is Mode.ADD:
        new = {name: write.table.c[name] + value for name, value in new.items()}
    return inserted.on_conflict_do_update(index_elements=write.key, set_=new)


def _name(number: int) -> str:
    return f"rows_{number}"


def _bound(row: Row) -> dict[str, Any]:
    """An UPDATE reserves the names of its columns for itself."""
    return {f"new_{name}": value for name, value in row.items()}
