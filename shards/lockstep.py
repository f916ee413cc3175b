"""Keeps the ranks of a group in step: rank 0 tells, the others do the same.

The leader is the whole group's ``Runner``. It broadcasts each call before making it itself, so
every rank makes the same calls in the same order, which is all that their collectives need.
Followers sleep in the next broadcast; if none comes within the group's time-out they take the
leader for dead, so an idle leader must run a step more often than that. Standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeAlias

from shards.errors import GroupError
from shards.step import (
    Advance,
    Begin,
    Drawn,
    Draws,
    PictureKey,
    PictureSpan,
    Runner,
    StepPlan,
    nothing,
)

if TYPE_CHECKING:
    import numpy as np

    from shards.comm import Communicator


# What the leader tells: a verb and its values. Plans and keys go as bare tuples: a step in which
# every sequence decodes is some twenty bytes however many there are.
_RUN, _ADD_PICTURE, _DROP_PICTURE, _CLOSE = range(4)
Command: TypeAlias = tuple[Any, ...]


class Leader:
    """Rank 0's end: a ``Runner`` whose calls all ranks make, beginning with rank 0's ``runner``.

    Every method but ``close`` raises GroupError when a rank is lost.
    """

    def __init__(self, runner: Runner, comm: Communicator) -> None:
        self._runner = runner
        self._comm = comm

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        # In host memory here and there, so they travel with the command.
        self._tell(_ADD_PICTURE, _values(key), features)
        self._runner.add_picture(key, features)

    def drop_picture(self, key: PictureKey) -> None:
        self._tell(_DROP_PICTURE, _values(key))
        self._runner.drop_picture(key)

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> Sequence[Drawn]:
        if self._comm.size > 1:
            self._tell(_RUN, *packed(plan))
        return self._runner.run(plan, meanwhile)

    def close(self) -> None:
        """End the followers' loops; a group that is broken has none left."""
        with suppress(GroupError):
            self._tell(_CLOSE)
        self._runner.close()

    def _tell(self, *command: Any) -> None:
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
            match command:
                case (kind, *values) if kind == _RUN:
                    runner.run(unpacked(values))
                case (kind, key, features) if kind == _ADD_PICTURE:
                    runner.add_picture(PictureKey(*key), features)
                case (kind, key) if kind == _DROP_PICTURE:
                    runner.drop_picture(PictureKey(*key))
                case _:
                    return
    finally:
        # Also after an error: the others notice a closed connection at once, silence late.
        runner.close()


def packed(plan: StepPlan) -> Command:
    """A plan as tuples of numbers, which pickle small; ``unpacked`` is its inverse."""
    begun = tuple(
        (
            begin.row,
            begin.token_ids,
            begin.computed,
            begin.block_table,
            _values(begin.draws),
            begin.drawn,
            tuple((_values(span.key), span.patches) for span in begin.pictures),
        )
        for begin in plan.begun
    )
    return plan.ended, begun, tuple(_values(advance) for advance in plan.advances)


def unpacked(command: Sequence[Any]) -> StepPlan:
    ended, begun, advances = command
    return StepPlan(
        ended,
        tuple(
            Begin(
                row,
                token_ids,
                computed,
                block_table,
                Draws(*draws),
                drawn,
                tuple(PictureSpan(PictureKey(*key), patches) for key, patches in pictures),
            )
            for row, token_ids, computed, block_table, draws, drawn, pictures in begun
        ),
        tuple(Advance(*advance) for advance in advances),
    )


def _values(record: PictureKey | Draws | Advance) -> tuple[Any, ...]:
    return tuple(getattr(record, name) for name in record.__slots__)
