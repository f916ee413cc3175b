"""Times as the ledger keeps them: integer microseconds since the epoch, days and months in UTC."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

MICROSECONDS = 1_000_000
# Microseconds since the epoch; injected, so that tests can turn the clock.
Clock = Callable[[], int]


def now_us() -> int:
    return time.time_ns() // 1_000


def day_of(at_us: int) -> str:
    """``YYYY-MM-DD``."""
    return datetime.fromtimestamp(at_us // MICROSECONDS, UTC).strftime("%Y-%m-%d")


def month_of(at_us: int) -> str:
    """``YYYY-MM``, the period of a budget."""
    return day_of(at_us)[:7]
