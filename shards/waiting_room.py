"""Choices that wait for a seat, and who of them is next. Standard library only.

First by priority: the higher goes before the lower, whatever their teams have had. Among equals by
the teams' counters (fairness.py), and within a team first come, first served. Where it comes to
that, priority also says whose prompt is computed first and who is put back last.

So that no priority starves, a choice rises one level each time that ``patience`` others were
seated while it waited, but never above the highest that somebody asks for: at one level, having
waited long gives no team an advantage over another.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from itertools import chain

from shards.choice import Choice


class WaitingRoom:
    """Args: ``patience``: seatings after which who still waits rises by a level."""

    def __init__(self, patience: int) -> None:
        self._patience = patience
        # (team, priority) → choices in the order of arrival
        self._lanes: dict[tuple[str, int], list[Choice]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __iter__(self) -> Iterator[Choice]:
        return chain.from_iterable(self._lanes.values())

    def put(self, choice: Choice) -> None:
        """At its place by arrival: one that was put back is first in its lane again."""
        insort(self._lanes.setdefault(_lane(choice), []), choice, key=_arrival)

    def take(self, choice: Choice) -> None:
        lane = self._lanes[_lane(choice)]
        lane.remove(choice)
        if not lane:
            del self._lanes[_lane(choice)]

    def next(self, seatings: int) -> Choice | None:
        """Who is to be seated next; None when nobody waits.

        Args:
            seatings: of anybody, so far.
        """
        top = max((priority for _, priority in self._lanes), default=0)

        def turn(choice: Choice) -> tuple[float, ...]:
            account = choice.generation.account
            level = self._level(choice, top, seatings)
            return (-level, account.committed, account.seated, *_arrival(choice))

        choice = min((lane[0] for lane in self._lanes.values()), key=turn, default=None)
        if choice is not None:
            choice.level = self._level(choice, top, seatings)
        return choice

    def _level(self, choice: Choice, top: int, seatings: int) -> int:
        assert choice.waits_since is not None
        risen = (seatings - choice.waits_since) // self._patience
        return min(top, choice.generation.request.priority + risen)


def _lane(choice: Choice) -> tuple[str, int]:
    request = choice.generation.request
    return request.tenant.team, request.priority


def _arrival(choice: Choice) -> tuple[int, int]:
    return choice.generation.serial, choice.index
