"""Sums of integers that stay integers, on either store."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, cast, func


def total(column: ColumnElement[int]) -> ColumnElement[int]:
    """0 of nothing. PostgreSQL would sum bigint to numeric, and both would make nothing of none."""
    return cast(func.coalesce(func.sum(column), 0), BigInteger)
