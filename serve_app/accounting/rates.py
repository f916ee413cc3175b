"""Rate limits as token buckets, in integers. Pure: no store, no clock of its own.

A bucket of limit L holds L units and drains L of them per minute. What is in it is kept in
millionths of a unit, so that draining is exact to a millionth, and rounded so that a caller never
gains by it:

    >>> bucket = Bucket(limit=60, used=0, at_us=0).taken(60, now_us=0)
    >>> bucket.wait_us(1, now_us=0), bucket.wait_us(1, now_us=1_000_000)
    (1000000, 0)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.hold import Allowance

MILLIONTHS = 1_000_000
_MINUTE_S = 60


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was taken from a limit per minute and has not drained yet.

    Attributes:
        limit: None is no limit; nothing is counted then.
        used: in millionths of a unit, as it was at ``at_us``.
    """

    limit: int | None
    used: int
    at_us: int

    def fits_ever(self, units: int) -> bool:
        return self.limit is None or units <= self.limit

    def wait_us(self, units: int, now_us: int) -> int:
        """Until there is room for ``units``, exactly; 0 is now. They must fit ever."""
        if not self.limit:
            return 0
        return self._drains_by(self.used + (units - self.limit) * MILLIONTHS, now_us)

    def taken(self, units: int, now_us: int) -> Bucket:
        return self._changed(units, now_us)

    def given_back(self, units: int, now_us: int) -> Bucket:
        """What was taken and not used; what has drained since is not given twice."""
        return self._changed(-units, now_us)

    def allowance(self, now_us: int) -> Allowance | None:
        """None without a limit."""
        if self.limit is None:
            return None
        left = max(0, self.limit * MILLIONTHS - self._drained(now_us))
        return Allowance(
            limit=self.limit,
            remaining=left // MILLIONTHS,
            reset_s=self._drains_by(self.used, now_us) / MICROSECONDS,
        )

    def _changed(self, units: int, now_us: int) -> Bucket:
        if self.limit is None:
            return self
        used = max(0, self._drained(now_us) + units * MILLIONTHS)
        # Gateways' clocks differ a little: one that is behind drains nothing twice.
        return replace(self, used=used, at_us=max(self.at_us, now_us))

    # A minute is 60 s of 10**6 us, a unit 10**6 millionths: L units a minute are L / 60
    # millionths per us.

    def _drained(self, now_us: int) -> int:
        """Millionths that are left."""
        elapsed_us = max(0, now_us - self.at_us)
        return max(0, self.used - (self.limit or 0) * elapsed_us // _MINUTE_S)

    def _drains_by(self, millionths: int, now_us: int) -> int:
        """Microseconds from now until so much has drained since ``at_us``."""
        at_least_us = -(-millionths * _MINUTE_S // self.limit) if self.limit else 0
        return max(0, self.at_us + at_least_us - now_us)


def tightest(allowances: list[Allowance | None]) -> Allowance | None:
    """The one with the least remaining."""
    limits = [allowance for allowance in allowances if allowance is not None]
    return min(limits, key=lambda allowance: (allowance.remaining, allowance.limit), default=None)
