from __future__ import annotations

import numpy as np
import pytest

from shards.simulated import PlanViolationError, SimulatedRunner, hashed, scripted
from shards.step import PictureKey, PictureRows, SampleSpec, SequenceStep, StepPlan

IMG = 10
DRAW = SampleSpec(seed=0, choice=0, index=0, temperature=0)


def runner(next_token=None) -> SimulatedRunner:
    return SimulatedRunner(next_token or hashed(50), num_blocks=8, block_size=4, image_token_id=IMG)


def plan(*steps: SequenceStep) -> StepPlan:
    return StepPlan(steps)


def draw(simulated: SimulatedRunner, *steps: SequenceStep) -> list[int]:
    return [drawn.token_id for drawn in simulated.run(plan(*steps))]


def test_chunks_and_blocks_do_not_change_the_draw():
    whole = draw(runner(), SequenceStep((20, 21, 22, 23, 24), 0, (0, 1), sample=DRAW))
    chunked = runner()
    assert draw(chunked, SequenceStep((20, 21, 22), 0, (5,))) == []
    assert draw(chunked, SequenceStep((23, 24), 3, (5, 2), sample=DRAW)) == whole
    assert draw(runner(), SequenceStep((20, 21, 22, 23, 25), 0, (0, 1), sample=DRAW)) != whole


def test_scripted_reply_follows_the_output_index():
    replies = runner(scripted((30, 31)))
    for index, expected in enumerate((30, 31, 30)):
        sample = SampleSpec(seed=0, choice=0, index=index, temperature=0)
        assert draw(replies, SequenceStep((20,), 0, (0,), sample=sample)) == [expected]


def test_banned_ids_are_not_drawn():
    banned = tuple(range(1, 50))
    sample = SampleSpec(seed=0, choice=0, index=0, temperature=0, banned=banned)
    assert draw(runner(), SequenceStep((20,), 0, (0,), sample=sample)) == [0]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([SequenceStep((20,), 1, (0,), sample=DRAW)], "position 0 was never computed"),
        ([SequenceStep((), 0, ())], "computes nothing"),
        ([SequenceStep((20,) * 5, 0, (0,))], r"5 positions in blocks \(0,\)"),
        ([SequenceStep((20,) * 5, 0, (0, 0))], r"5 positions in blocks \(0, 0\)"),
        ([SequenceStep((20,), 0, (8,))], r"blocks \(8,\) of 8"),
        ([SequenceStep((20,), 0, (1,)), SequenceStep((21,), 0, (1,))], "written by two"),
        ([SequenceStep((20,), 0, (1,)), SequenceStep((21,), 4, (1, 2))], "another reads it"),
        ([SequenceStep((20, IMG), 0, (0,))], "0 feature rows for 1"),
        (
            [SequenceStep((IMG,), 0, (0,), (PictureRows(PictureKey("r", 0), 0, 1),))],
            "is not held",
        ),
    ],
)
def test_a_plan_that_breaks_a_rule_is_named(steps, reason):
    with pytest.raises(PlanViolationError, match=reason):
        runner().run(plan(*steps))


def test_feature_rows_stay_inside_their_picture():
    holder = runner()
    key = PictureKey("r", 0)
    holder.add_picture(key, np.zeros((2, 3), dtype=np.float32))
    step = SequenceStep((IMG, IMG), 0, (0,), (PictureRows(key, 0, 2),))
    holder.run(plan(step))
    with pytest.raises(PlanViolationError, match="outside its picture"):
        holder.run(plan(SequenceStep((IMG, IMG), 0, (0,), (PictureRows(key, 1, 3),))))
    with pytest.raises(PlanViolationError, match="held already"):
        holder.add_picture(key, np.zeros((2, 3), dtype=np.float32))
    holder.drop_picture(key)
    with pytest.raises(PlanViolationError, match="is not held"):
        holder.run(plan(step))


def test_a_block_overwritten_by_another_sequence_is_noticed():
    cache = runner()
    cache.run(plan(SequenceStep((20, 21, 22, 23, 24), 0, (0, 1))))
    cache.run(plan(SequenceStep((30,), 4, (7, 0))))
    with pytest.raises(PlanViolationError, match="position 0 was never computed"):
        cache.run(plan(SequenceStep((25,), 5, (0, 1), sample=DRAW)))
