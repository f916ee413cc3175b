"""Dollars as people type and read them, and tables of aligned columns. No floats."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ops.problem import Problem

_TYPED = re.compile(r"\$?([0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(\.[0-9]{1,9})?", re.ASCII)
NONE = "none"


def dollars(usd: str | None) -> str:
    """A decimal string of the API; cents at least, and not a digit less than there is.

    >>> dollars("1234.5"), dollars("-0.00000015"), dollars(None)
    ('$1,234.50', '-$0.00000015', '-')
    """
    if usd is None:
        return "-"
    sign, digits = ("-", usd[1:]) if usd.startswith("-") else ("", usd)
    whole, _, fraction = digits.partition(".")
    return f"{sign}${int(whole):,}.{fraction.rstrip('0').ljust(2, '0')}"


def typed_dollars(text: str, option: str) -> str:
    """For the API, of ``$1,234.50`` or ``1234.5``.

    Raises:
        Problem: it is no amount.
    """
    match = _TYPED.fullmatch(text.strip())
    if match is None:
        raise Problem(f"{option} {text}: write an amount in dollars like 1,234.50")
    return match[1].replace(",", "") + (match[2] or "")


def typed_count(text: str, option: str) -> int | None:
    """A whole number; ``none`` is no limit.

    Raises:
        Problem: it is neither.
    """
    if text == NONE:
        return None
    if not (text.isascii() and text.replace(",", "").isdigit()):
        raise Problem(f"{option} {text}: write a whole number, or {NONE} for no limit")
    return int(text.replace(",", ""))


def count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need to be; those that hold numbers stand to the right.

    Control characters of names are shown, not sent to the terminal.
    """
    lines = [head, *([_shown(cell) for cell in row] for row in rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [len(column) > 1 and all(map(_numeric, column[1:])) for column in columns]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(cell: Any) -> str:
    text = "-" if cell is None or cell == "" else str(cell)
    return text if text.isprintable() else ascii(text)[1:-1]


def _numeric(cell: str) -> bool:
    return re.fullmatch(r"-|-?\$?[0-9][0-9,.]*", cell) is not None
