"""Leader and followers as processes of their own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.comm import Communicator, ProcessGroup
from shards.errors import GroupError
from shards.lockstep import Leader, follow
from shards.request import TokenLogprob
from shards.step import Advance, Begin, Drawn, Draws, PictureKey, StepPlan, nothing
from tests.multirank.ranks import on_ranks

pytestmark = pytest.mark.multirank
KEY = PictureKey("r", 0)
PLAN = StepPlan(begun=(Begin(0, (1, 2), 0, (0,), Draws(0, 0, 0.0)),), advances=(Advance(0, 2),))
DEADLY = StepPlan(ended=(666,))


class SummingRunner:
    """Answers with the sum over ranks of each rank's own picture; dies of one plan if told to."""

    def __init__(self, comm: Communicator, mortal: bool = False) -> None:
        self._comm = comm
        self._mortal = mortal
        self._pictures: dict[PictureKey, np.ndarray] = {}

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        self._pictures[key] = features * (self._comm.rank + 1)

    def drop_picture(self, key: PictureKey) -> None:
        self._pictures.pop(key, None)

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> Sequence[Drawn]:
        meanwhile()
        if plan == DEADLY and self._mortal:
            os.kill(os.getpid(), signal.SIGKILL)
        total = torch.tensor([float(picture.sum()) for picture in self._pictures.values()] or [0.0])
        self._comm.all_reduce(total)
        return [Drawn(0, (TokenLogprob(int(total.sum()), 0.0),))]

    def close(self) -> None:
        self._comm.close()


def play(comm: Communicator) -> list[int]:
    runner = SummingRunner(comm)
    if comm.rank > 0:
        follow(runner, comm)
        return []
    leader = Leader(runner, comm)
    tokens = [leader.run(PLAN)[0].tokens[0].token_id]
    leader.add_picture(KEY, np.full((1000, 300), 0.01, dtype=np.float64))
    tokens.append(leader.run(PLAN)[0].tokens[0].token_id)
    leader.drop_picture(KEY)
    tokens.append(leader.run(PLAN)[0].tokens[0].token_id)
    leader.close()
    return tokens


def test_all_ranks_act_as_one_runner():
    assert on_ranks(3, play) == [[0, 18000, 0], [], []]


def other_rank(rank: int, rendezvous: str) -> None:
    comm = ProcessGroup(rank, 2, rendezvous, "gloo", torch.device("cpu"), timeout_s=60)
    play_deadly(SummingRunner(comm, mortal=True), comm)


def play_deadly(runner: SummingRunner, comm: Communicator) -> None:
    if comm.rank == 0:
        Leader(runner, comm).run(DEADLY)
    else:
        follow(runner, comm)


@pytest.mark.parametrize("survivor", [0, 1])
def test_a_killed_rank_is_an_error_at_once_and_no_hang(survivor: int, tmp_path: Path):
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    other = multiprocessing.get_context("spawn").Process(
        target=other_rank, args=(1 - survivor, rendezvous)
    )
    other.start()
    comm = ProcessGroup(survivor, 2, rendezvous, "gloo", torch.device("cpu"), timeout_s=60)
    runner = SummingRunner(comm)
    try:
        started = time.monotonic()
        with pytest.raises(GroupError, match=f"rank {survivor} of 2 lost its group"):
            play_deadly(runner, comm)
        assert time.monotonic() - started < 20  # the group's time-out is 60 s
    finally:
        comm.close()
        other.join(10)
    assert other.exitcode == -signal.SIGKILL


def silent_leader(rendezvous: str, about_to_join: Event, over: Event) -> None:
    about_to_join.set()
    comm = ProcessGroup(0, 2, rendezvous, "gloo", torch.device("cpu"), timeout_s=60)
    over.wait(60)
    comm.close()


def test_a_silent_leader_is_taken_for_dead(tmp_path: Path):
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    spawn = multiprocessing.get_context("spawn")
    about_to_join, over = spawn.Event(), spawn.Event()
    leader = spawn.Process(target=silent_leader, args=(rendezvous, about_to_join, over))
    leader.start()
    about_to_join.wait(60)
    comm = ProcessGroup(1, 2, rendezvous, "gloo", torch.device("cpu"), timeout_s=3)
    try:
        with pytest.raises(GroupError, match="rank 1 of 2 lost its group"):
            follow(SummingRunner(comm), comm)
        assert leader.is_alive()
    finally:
        over.set()
        comm.close()
        leader.join(10)
