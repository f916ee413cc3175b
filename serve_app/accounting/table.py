"""A report as rows under typed columns, whatever it is written as afterwards (exports.py)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from serve_app.accounting.money import format_usd

Cell = str | int | None


class Unit(Enum):
    TEXT = auto()
    COUNT = auto()
    NANO_USD = auto()  # kept as an integer, written as dollars


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    unit: Unit = Unit.TEXT


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def records(self) -> list[dict[str, Cell]]:
        """For JSON: amounts become decimal strings, as JavaScript has no integers so long."""
        return [
            {column.name: plain(cell, column.unit) for column, cell in self._cells(row)}
            for row in self.rows
        ]

    def _cells(self, row: tuple[Cell, ...]) -> zip[tuple[Column, Cell]]:
        return zip(self.columns, row, strict=True)


def plain(cell: Cell, unit: Unit) -> Cell:
    """As JSON or CSV show it."""
    return format_usd(cell) if unit is Unit.NANO_USD and isinstance(cell, int) else cell
