"""Tables as files: CSV that a spreadsheet cannot be tricked by, and Parquet with exact decimals."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from enum import StrEnum
from typing import Any

from serve_app.accounting.table import Cell, Column, Table, Unit, plain

# Of all dollar columns; nine decimals are nano-dollars.
_DIGITS, _DECIMALS = 38, 9
# What a spreadsheet takes for the start of a formula (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


class FileFormat(StrEnum):
    CSV = "csv"
    PARQUET = "parquet"

    @property
    def media_type(self) -> str:
        return "text/csv; charset=utf-8" if self is FileFormat.CSV else "application/x-parquet"


def write(table: Table, file_format: FileFormat) -> bytes:
    return to_csv(table) if file_format is FileFormat.CSV else to_parquet(table)


def to_csv(table: Table) -> bytes:
    """RFC 4180, UTF-8. Texts that a spreadsheet would run are preceded by an apostrophe."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(column.name for column in table.columns)
    for row in table.rows:
        writer.writerow(map(_written, row, table.columns))
    return stream.getvalue().encode()


def to_parquet(table: Table) -> bytes:
    """Counts are int64, amounts decimal128 in dollars, days and names strings."""
    import pyarrow
    import pyarrow.parquet

    types = {
        Unit.TEXT: pyarrow.string(),
        Unit.COUNT: pyarrow.int64(),
        Unit.NANO_USD: pyarrow.decimal128(_DIGITS, _DECIMALS),
    }
    schema = pyarrow.schema((column.name, types[column.unit]) for column in table.columns)
    values = [
        pyarrow.array([_valued(row[at], column) for row in table.rows], types[column.unit])
        for at, column in enumerate(table.columns)
    ]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_arrays(values, schema=schema), sink)
    return sink.getvalue()


def _written(cell: Cell, column: Column) -> Cell:
    if isinstance(cell, str) and cell.startswith(_FORMULA):
        return f"'{cell}"
    return plain(cell, column.unit)


def _valued(cell: Cell, column: Column) -> Any:
    if column.unit is Unit.NANO_USD and isinstance(cell, int):
        return Decimal(cell).scaleb(-_DECIMALS)
    return cell
