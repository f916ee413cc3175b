"""What a gateway's dealings with the accounts tell whoever watches; ``gateway/meters.py`` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from serve_app.accounting.hold import Outcome

if TYPE_CHECKING:
    from serve_app.accounting.sweeper import SweepReport


class Meter(Protocol):
    """Called in the event loop of the accounts; seconds are durations until now."""

    def committed(self, jobs: int, seconds: float) -> None:
        """A transaction of holds and settlements."""

    def not_committed(self) -> None:
        """The database did not take one."""

    def waiting(self, holds: int) -> None:
        """How many requests wait for theirs."""

    def held(self, request_id: str, seconds: float, *, granted: bool) -> None:
        """A request has its hold, or was refused it."""

    def settled(self, request_id: str, outcome: Outcome, seconds: float) -> None:
        """Its end is booked."""

    def left_to_sweeper(self, request_id: str) -> None:
        """Its end is the sweeper's to find out."""

    def swept(self, report: SweepReport) -> None:
        """A round is over."""


class NoMeter:
    """Nobody watches."""

    def committed(self, jobs: int, seconds: float) -> None: ...
    def not_committed(self) -> None: ...
    def waiting(self, holds: int) -> None: ...
    def held(self, request_id: str, seconds: float, *, granted: bool) -> None: ...
    def settled(self, request_id: str, outcome: Outcome, seconds: float) -> None: ...
    def left_to_sweeper(self, request_id: str) -> None: ...
    def swept(self, report: SweepReport) -> None: ...
