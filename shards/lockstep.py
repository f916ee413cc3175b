"""Keeps the ranks of a group in step: rank 0 tells, the others do the same.

The leader is the whole group's ``Runner``. It broadcasts each call before making it itself, so
every rank makes the same calls in the same order, which is all that their collectives need.
Followers sleep in the next broadcast; if none comes within the group's time-out they take the
leader for dead, so an idle leader must run a step more often than that. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from shards.errors import GroupError
from shards.step import Drawn, PictureKey, Runner, StepPlan, nothing

if TYPE_CHECKING:
    import numpy as np

    from shards.comm import Communicator


@dataclass(frozen=True, slots=True)
class AddPicture:
    """``features`` are in host memory and go there, so they travel with the command."""

    key: PictureKey
    features: np.ndarray


@dataclass(frozen=True, slots=True)
class DropPicture:
    key: PictureKey


@dataclass(frozen=True, slots=True)
class Run:
    plan: StepPlan


@dataclass(frozen=True, slots=True)
class Close:
    pass


Command: TypeAlias = AddPicture | DropPicture | Run | Close


class Leader:
    """Rank 0's end: a ``Runner`` whose calls all ranks make, beginning with rank 0's ``runner``.

    Every method but ``close`` raises GroupError when a rank is lost.
    """

    def __init__(self, runner: Runner, comm: Communicator) -> None:
        self._runner = runner
        self._comm = comm

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        self._tell(AddPicture(key, features))
        self._runner.add_picture(key, features)

    def drop_picture(self, key: PictureKey) -> None:
        self._tell(DropPicture(key))
        self._runner.drop_picture(key)

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> Sequence[Drawn]:
        self._tell(Run(plan))
        return self._runner.run(plan, meanwhile)

    def close(self) -> None:
        """End the followers' loops; a group that is broken has none left."""
        with suppress(GroupError):
            self._tell(Close())
        self._runner.close()

    def _tell(self, command: Command) -> None:
        if self._comm.size > 1:
            self._comm.broadcast_object(command)


def follow(runner: Runner, comm: Communicator) -> None:
    """The other ranks' loop: do what the leader does until it closes the group.

    Raises:
        GroupError: another rank was lost, or the leader kept silent past the time-out.
    """
    try:
        while True:
            command: Command = comm.broadcast_object(None)
            if isinstance(command, Close):
                return
            _obey(command, runner)
    finally:
        # Also after an error: the others notice a closed connection at once, silence late.
        runner.close()


def _obey(command: Command, runner: Runner) -> None:
    match command:
        case AddPicture(key, features):
            runner.add_picture(key, features)
        case DropPicture(key):
            runner.drop_picture(key)
        case Run(plan):
            runner.run(plan)
