from __future__ import annotations

import pickle
import queue
import threading
from typing import Any

import numpy as np
import pytest

from shards.comm import SingleRank
from shards.errors import GroupError
from shards.lockstep import Leader, follow, packed, unpacked
from shards.request import TokenLogprob
from shards.step import (
    Advance,
    Begin,
    Drawn,
    Draws,
    PictureKey,
    PictureSpan,
    StepPlan,
    nothing,
)

KEY = PictureKey("r", 0)
PLAN = StepPlan(
    ended=(4,),
    begun=(
        Begin(
            row=4,
            token_ids=(1, 10, 2),
            computed=1,
            block_table=(7,),
            draws=Draws(3, 0, 0.5, top_k=4, logit_bias=((5, 1.5),), banned=(10,), logprobs=2),
            drawn=1,
            pictures=(PictureSpan(KEY, 1),),
        ),
    ),
    advances=(Advance(4, 3, blocks=(8,), drafts=(6,), masks=(b"\1", b"\2")), Advance(0, 0)),
)
DRAWN = [Drawn(4, (TokenLogprob(5, 0.0),))]


class Recorder:
    """A runner that notes its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def add_picture(self, key, features) -> None:
        self.calls.append(("add_picture", key, features.tolist()))

    def drop_picture(self, key) -> None:
        self.calls.append(("drop_picture", key))

    def run(self, plan, meanwhile=nothing):
        meanwhile()
        self.calls.append(("run", plan))
        return DRAWN

    def close(self) -> None:
        self.calls.append(("close",))


Objects = queue.SimpleQueue[Any]


class Wire(SingleRank):
    """One end of a group whose objects cross a queue; no tensor crosses."""

    def __init__(self, rank: int, size: int, objects: Objects) -> None:
        self.rank, self.size = rank, size
        self._objects = objects

    def broadcast_object(self, value: Any) -> Any:
        if self.rank == 0:
            self._objects.put(value)
            return value
        received = self._objects.get(timeout=10)
        if isinstance(received, Exception):
            raise received
        return received


def test_followers_make_the_leaders_calls_in_order():
    objects: Objects = queue.SimpleQueue()
    mine, theirs = Recorder(), Recorder()
    follower = threading.Thread(target=follow, args=(theirs, Wire(1, 2, objects)))
    follower.start()
    leader = Leader(mine, Wire(0, 2, objects))
    leader.add_picture(KEY, np.array([[1.5, 2.0]], dtype=np.float32))
    meanwhile = []
    assert leader.run(PLAN, lambda: meanwhile.append(objects.qsize())) == DRAWN
    assert len(meanwhile) == 1
    leader.drop_picture(KEY)
    leader.close()
    follower.join(10)
    assert not follower.is_alive()
    names = [call[0] for call in mine.calls]
    assert names == ["add_picture", "run", "drop_picture", "close"]
    assert theirs.calls == mine.calls


def test_a_plan_is_the_same_when_it_arrives():
    assert unpacked(pickle.loads(pickle.dumps(packed(PLAN)))) == PLAN


def test_a_step_in_which_all_decode_is_tens_of_bytes_and_a_new_block_a_few_more():
    def size(plan: StepPlan) -> int:
        return len(pickle.dumps((0, *packed(plan)), protocol=pickle.HIGHEST_PROTOCOL))

    assert size(StepPlan()) < 40
    assert size(StepPlan(advances=(Advance(3, 1, blocks=(900,)),))) < 70


def test_a_group_of_one_is_told_nothing():
    objects: Objects = queue.SimpleQueue()
    recorder = Recorder()
    leader = Leader(recorder, Wire(0, 1, objects))
    leader.run(PLAN)
    leader.close()
    assert objects.empty()
    assert [call[0] for call in recorder.calls] == ["run", "close"]


def test_a_follower_that_loses_its_group_lets_its_rank_go():
    objects: Objects = queue.SimpleQueue()
    objects.put(GroupError("rank 0 is gone"))
    recorder = Recorder()
    with pytest.raises(GroupError, match="rank 0 is gone"):
        follow(recorder, Wire(1, 2, objects))
    assert recorder.calls == [("close",)]


def test_closing_a_broken_group_still_lets_this_rank_go():
    class Broken(Wire):
        def broadcast_object(self, value: Any) -> Any:
            raise GroupError("rank 1 is gone")

    recorder = Recorder()
    leader = Leader(recorder, Broken(0, 2, queue.SimpleQueue()))
    with pytest.raises(GroupError, match="rank 1 is gone"):
        leader.run(PLAN)
    assert recorder.calls == []
    leader.close()
    assert recorder.calls == [("close",)]
