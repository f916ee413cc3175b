from __future__ import annotations

import numpy as np
import pytest

from shards.batch import PlanViolationError
from shards.simulated import SimulatedRunner, allows, hashed, scripted
from shards.step import Advance, Begin, Draws, PictureKey, PictureSpan, StepPlan
from tests.shards.toy_grammar import mask_of

IMG = 10
DRAWS = Draws(seed=0, choice=0, temperature=0)
KEY = PictureKey("r", 0)


def runner(next_token=None) -> SimulatedRunner:
    return SimulatedRunner(next_token or hashed(50), num_blocks=8, block_size=4, image_token_id=IMG)


def begin(
    tokens: tuple[int, ...], table: tuple[int, ...], row: int = 0, computed: int = 0, **rest
) -> Begin:
    return Begin(row, tokens, computed, table, rest.pop("draws", DRAWS), **rest)


def starting(*begins: Begin, drafts: tuple[int, ...] = (), ended: tuple[int, ...] = ()) -> StepPlan:
    """All that each misses, and drafts for each."""
    advances = [
        Advance(one.row, len(one.token_ids) - one.computed + len(drafts), drafts=drafts)
        for one in begins
    ]
    return StepPlan(ended, begins, tuple(advances))


def tokens(simulated: SimulatedRunner, plan: StepPlan) -> list[int]:
    return [token.token_id for drawn in simulated.run(plan) for token in drawn.tokens]


# -- draws ------------------------------------------------------------------------------------


def test_chunks_and_blocks_do_not_change_the_draw():
    whole = tokens(runner(), starting(begin((20, 21, 22, 23, 24), (0, 1))))
    chunked = runner()
    first = StepPlan((), (begin((20, 21, 22, 23, 24), (5,)),), (Advance(0, 3),))
    assert tokens(chunked, first) == []
    assert tokens(chunked, StepPlan(advances=(Advance(0, 2, blocks=(2,)),))) == whole
    assert tokens(runner(), starting(begin((20, 21, 22, 23, 25), (0, 1)))) != whole


def test_a_row_goes_on_without_a_word():
    simulated = runner()
    drawn = tokens(simulated, starting(begin((20, 21), (0, 1))))
    for _ in range(4):
        drawn += tokens(simulated, StepPlan())
    again = runner()
    whole = tokens(again, starting(begin((20, 21, *drawn[:-1]), (3, 4), drawn=4)))
    assert whole == drawn[-1:]


def test_accepted_drafts_are_what_would_have_been_drawn():
    plain = runner()
    expected = tokens(plain, starting(begin((20, 21), (0, 1))))
    for _ in range(3):
        expected += tokens(plain, StepPlan())
    right, wrong = tuple(expected[:3]), (expected[0], 49, expected[2])
    assert tokens(runner(), starting(begin((20, 21), (0, 1)), drafts=right)) == expected
    simulated = runner()
    assert tokens(simulated, starting(begin((20, 21), (0, 1)), drafts=wrong)) == expected[:2]
    # What was written for the refused drafts is written over.
    assert tokens(simulated, StepPlan()) == expected[2:3]


def test_scripted_reply_follows_the_output_index():
    replies = runner(scripted((30, 31)))
    assert tokens(replies, starting(begin((20,), (0,)))) == [30]
    assert tokens(replies, StepPlan()) == [31]
    assert tokens(replies, StepPlan()) == [30]


def test_banned_and_masked_ids_are_not_drawn():
    banned = Draws(seed=0, choice=0, temperature=0, banned=tuple(range(1, 50)))
    assert tokens(runner(), starting(begin((20,), (0,), draws=banned))) == [0]
    plan = StepPlan((), (begin((20,), (0,)),), (Advance(0, 1, masks=(mask_of((7,)),)),))
    assert tokens(runner(), plan) == [7]


def test_masks_are_one_bit_per_id():
    mask = mask_of((0, 9, 41))
    assert [token for token in range(43) if allows(mask, token)] == [0, 9, 41]
    assert allows(b"", 12345)


def test_the_draw_depends_on_the_picture():
    def drawn(value: float) -> list[int]:
        simulated = runner()
        simulated.add_picture(KEY, np.full((1, 3), value, dtype=np.float32))
        return tokens(simulated, starting(begin((20, IMG), (0,), pictures=(PictureSpan(KEY, 1),))))

    assert drawn(1) == drawn(1) != drawn(2)


def test_what_a_row_left_is_found_by_the_next():
    simulated = runner()
    whole = tokens(simulated, starting(begin((20, 21, 22, 23, 24), (0, 1))))
    other = begin((20, 21, 22, 23, 24), (0, 2), row=1, computed=4)
    assert tokens(simulated, starting(other, ended=(0,))) == whole


def test_the_caller_goes_on_meanwhile():
    simulated, called = runner(), []
    simulated.run(starting(begin((20,), (0,))), lambda: called.append(simulated.plans))
    assert called == [0]


# -- violations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        (starting(begin((20, 21), (0,), computed=1)), "position 0 was never computed"),
        (starting(begin((20,), (0,), computed=1)), "begins with 1 of 1 computed"),
        (starting(begin((20,) * 5, (0,))), r"5 positions in blocks \[0\]"),
        (starting(begin((20,) * 5, (0, 0))), r"a block twice: \[0, 0\]"),
        (starting(begin((20,), (8,))), r"blocks \[8\] of 8"),
        (starting(begin((20,), (1,)), begin((21,), (1,), row=1)), r"rows \[0, 1\] hold"),
        (starting(begin((20, IMG), (0,))), "0 feature rows for 1"),
        (
            starting(begin((IMG,), (0,), pictures=(PictureSpan(KEY, 1),))),
            "is not held",
        ),
        (StepPlan(ended=(0,)), "row 0 ends, but is not live"),
        (StepPlan(advances=(Advance(3, 1),)), "one that is not live"),
        (starting(begin((20,), (0,)), begin((21,), (1,))), "row 0 begins, but is live"),
        (StepPlan((), (begin((20, 21), (0,)),), (Advance(0, 1, drafts=(5,)),)), "1 drafts"),
        (StepPlan((), (begin((20,), (0,)),), (Advance(0, 2),)), "told to compute 2"),
    ],
)
def test_a_plan_that_breaks_a_rule_is_named(plan, reason):
    with pytest.raises(PlanViolationError, match=reason):
        runner().run(plan)


def test_a_prefix_that_is_another_s_is_noticed():
    simulated = runner()
    simulated.run(starting(begin((20, 21, 22, 23, 24), (0, 1))))
    with pytest.raises(PlanViolationError, match="row 1: position 2 is another's"):
        simulated.run(starting(begin((20, 21, 99, 23, 24), (0, 2), row=1, computed=4)))


def test_feature_rows_stay_inside_their_picture():
    holder = runner()
    holder.add_picture(KEY, np.zeros((2, 3), dtype=np.float32))
    holder.run(starting(begin((IMG, IMG), (0,), pictures=(PictureSpan(KEY, 2),))))
    longer = begin((IMG, IMG, IMG), (1,), row=1, pictures=(PictureSpan(KEY, 3),))
    with pytest.raises(PlanViolationError, match="outside its picture"):
        holder.run(starting(longer))
    with pytest.raises(PlanViolationError, match="held already"):
        holder.add_picture(KEY, np.zeros((2, 3), dtype=np.float32))
    holder.drop_picture(KEY)
    with pytest.raises(PlanViolationError, match="is not held"):
        holder.run(starting(begin((IMG, IMG), (2,), row=2, pictures=(PictureSpan(KEY, 2),))))


def test_a_block_that_another_still_holds_may_not_be_written():
    cache = runner()
    cache.run(starting(begin((20, 21, 22, 23, 24), (0, 1))))
    with pytest.raises(PlanViolationError, match=r"row 1 writes block 0, which rows \[0, 1\] hold"):
        cache.run(starting(begin((30,), (0,), row=1)))


def test_a_block_written_by_another_since_is_noticed():
    cache = runner()
    cache.run(starting(begin((20, 21, 22, 23, 24), (0, 1))))
    cache.run(starting(begin((30, 31), (0,), row=1), ended=(0,)))
    with pytest.raises(PlanViolationError, match="row 2: position 0 is another's"):
        cache.run(starting(begin((20, 21, 22, 23, 24), (0, 2), row=2, computed=4), ended=(1,)))
