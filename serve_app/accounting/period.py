"""Spans of whole UTC days, as reports and exports are asked for."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from serve_app.accounting.calendar import MICROSECONDS
from serve_app.errors import InvalidRequest

_FORM = re.compile(r"\d{4}-\d{2}(-\d{2})?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Period:
    """Days as ``YYYY-MM-DD``, both included."""

    first: str
    last: str

    @classmethod
    def parse(cls, first: str | None, last: str | None, today: str) -> Period:
        """From days or months as a person gives them; what is left out is this month, till today.

        >>> Period.parse("2026-02", "2026-02", today="2026-11-23")
        Period(first='2026-02-01', last='2026-02-28')

        Raises:
            InvalidRequest: no such day, or the first is after the last.
        """
        begin = _day("from", first, month_end=False) if first else today[:8] + "01"
        end = _day("to", last, month_end=True) if last else max(today, begin)
        if begin > end:
            raise InvalidRequest(f"from {begin} is after to {end}", param="from")
        return cls(begin, end)

    @property
    def start_us(self) -> int:
        return start_of(self.first)

    @property
    def end_us(self) -> int:
        """Exclusive."""
        return start_of(day_after(self.last))


def month_bounds(month: str) -> tuple[str, str]:
    """The first day of a month and of the one after it.

    >>> month_bounds("2026-12")
    ('2026-12-01', '2027-01-01')
    """
    return f"{month}-01", day_after(_last_day(month))


def day_after(day: str) -> str:
    return (date.fromisoformat(day) + timedelta(days=1)).isoformat()


def start_of(day: str) -> int:
    """Midnight UTC in microseconds since the epoch."""
    year, month, number = map(int, day.split("-"))
    return int(datetime(year, month, number, tzinfo=UTC).timestamp()) * MICROSECONDS


def checked_month(month: str, param: str = "month") -> str:
    """Raises InvalidRequest unless ``month`` is a ``YYYY-MM`` of the calendar."""
    if not _FORM.fullmatch(month) or len(month) != len("YYYY-MM"):
        raise InvalidRequest(f"{month[:20]!r} is not a month like 2026-11", param=param)
    return _day(param, month, month_end=False)[:7]


def _day(param: str, text: str, *, month_end: bool) -> str:
    wrong = InvalidRequest(
        f"{text[:20]!r} is neither a day like 2026-11-23 nor a month like 2026-11", param=param
    )
    if not _FORM.fullmatch(text):
        raise wrong
    try:
        # The year 9999 has no day after its last.
        first = date.fromisoformat(text if len(text) > len("YYYY-MM") else f"{text}-01")
        if not 1970 <= first.year < 9999:
            raise wrong
    except ValueError:
        raise wrong from None
    if len(text) == len("YYYY-MM") and month_end:
        return _last_day(text)
    return first.isoformat()


def _last_day(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{month}-{calendar.monthrange(year, number)[1]:02d}"
