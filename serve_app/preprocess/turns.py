"""Whose picture is next: teams take turns, and so do the requests of a team. Standard library only.

So a request of many pictures never holds up another by more than one picture a turn.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turn:
    """For whom something is done."""

    team: str
    request_id: str


class Turns(Generic[T]):
    """A queue. Not for several threads at once."""

    def __init__(self) -> None:
        # Who was served longest ago comes first.
        self._teams: OrderedDict[str, OrderedDict[str, deque[T]]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, turn: Turn, item: T) -> None:
        requests = self._teams.setdefault(turn.team, OrderedDict())
        requests.setdefault(turn.request_id, deque()).append(item)
        self._size += 1

    def take(self) -> T:
        """Raises KeyError: nothing waits."""
        team, requests = self._teams.popitem(last=False)
        request_id, items = requests.popitem(last=False)
        item = items.popleft()
        self._size -= 1
        if items:
            requests[request_id] = items
        if requests:
            self._teams[team] = requests
        return item
