"""The mirror of the running sequences: what plans make of it, and that all hold the same."""

from __future__ import annotations

import pickle
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.batch import Batch, PlanViolationError, Work
from shards.lockstep import packed, unpacked
from shards.request import TokenLogprob
from shards.step import (
    Advance,
    Begin,
    Drawn,
    Draws,
    PictureKey,
    PictureRows,
    PictureSpan,
    StepPlan,
)

IMG = 10
DRAWS = Draws(seed=1, choice=0, temperature=0.0)
PENALISED = Draws(seed=1, choice=0, temperature=0.0, frequency_penalty=0.5)


def begin(row: int = 0, tokens: tuple[int, ...] = (1, 2, 3), draws: Draws = DRAWS) -> Begin:
    return Begin(row, tokens, 0, (5, 6), draws)


def tokens(*token_ids: int) -> list[TokenLogprob]:
    return [TokenLogprob(token_id, 0.0) for token_id in token_ids]


def started(draws: Draws = DRAWS) -> Batch:
    """Row 0 has computed 1 2 3 and drawn 7."""
    batch = Batch(IMG)
    works = batch.apply(StepPlan(begun=(begin(draws=draws),), advances=(Advance(0, 3),)))
    assert batch.accept(works, tokens(7)) == [Drawn(0, tuple(tokens(7)))]
    return batch


def test_a_chunk_draws_nothing_and_the_last_one_draws():
    batch = Batch(IMG)
    (work,) = batch.apply(StepPlan(begun=(begin(),), advances=(Advance(0, 2),)))
    assert (work.start, work.token_ids, work.samples) == (0, (1, 2), ())
    assert batch.accept([work], []) == []
    (work,) = batch.apply(StepPlan())  # what misses one token computes it unasked
    assert (work.start, work.token_ids, len(work.samples)) == (2, (3,), 1)


def test_who_misses_more_waits_to_be_told():
    batch = Batch(IMG)
    assert batch.apply(StepPlan(begun=(begin(),))) == []
    assert batch.apply(StepPlan(advances=(Advance(0, 0, blocks=(9,)),))) == []
    (work,) = batch.apply(StepPlan(advances=(Advance(0, 3),)))
    assert work.block_table == [5, 6, 9]


@pytest.mark.parametrize(
    ("drawn", "counted"), [((8, 9, 4), 3), ((8, 5, 4), 2), ((5, 9, 4), 1), ((9, 8, 9), 1)]
)
def test_drafts_count_as_far_as_they_were_drawn(drawn, counted):
    batch = started()
    (work,) = batch.apply(StepPlan(advances=(Advance(0, 3, drafts=(8, 9)),)))
    assert work.token_ids == (7, 8, 9)
    assert [sample.index for sample in work.samples] == [1, 2, 3]
    assert batch.accept([work], tokens(*drawn)) == [Drawn(0, tuple(tokens(*drawn[:counted])))]
    (state,) = batch
    assert state.token_ids == [1, 2, 3, 7, *drawn[:counted]]
    assert (state.missing, state.drawn) == (1, 1 + counted)
    (work,) = batch.apply(StepPlan())
    assert (work.start, work.token_ids) == (3 + counted, drawn[counted - 1 : counted])


def test_penalties_count_what_was_drawn_and_each_draft_before():
    batch = started(PENALISED)
    (work,) = batch.apply(StepPlan(advances=(Advance(0, 3, drafts=(8, 7)),)))
    assert [dict(sample.output_counts) for sample in work.samples] == [
        {7: 1},
        {7: 1, 8: 1},
        {7: 2, 8: 1},
    ]
    batch.accept([work], tokens(9, 8, 7))
    (work,) = batch.apply(StepPlan())
    assert dict(work.samples[0].output_counts) == {7: 1, 9: 1}


def test_a_sequence_begins_again_with_what_it_drew():
    batch = Batch(IMG)
    again = Begin(3, (1, 2, 7, 7, 8), 2, (4,), PENALISED, drawn=3)
    (work,) = batch.apply(StepPlan(begun=(again,), advances=(Advance(3, 3),)))
    assert (work.start, work.token_ids, work.samples[0].index) == (2, (7, 7, 8), 3)
    assert Counter(dict(work.samples[0].output_counts)) == {7: 2, 8: 1}


def test_early_bans_end_with_min_tokens_within_drafts_too():
    draws = Draws(1, 0, 0.0, min_tokens=2, banned=(10,), banned_early=(2, 10))
    batch = started(draws)
    (work,) = batch.apply(StepPlan(advances=(Advance(0, 3, drafts=(8, 9)),)))
    assert [sample.banned for sample in work.samples] == [(2, 10), (10,), (10,)]


def test_pictures_are_read_row_by_row_and_drafts_read_none():
    first, second = PictureKey("r", 0), PictureKey("r", 1)
    one = Begin(
        0,
        (1, IMG, IMG, 2, IMG, 3),
        0,
        (5,),
        DRAWS,
        pictures=(PictureSpan(first, 2), PictureSpan(second, 1)),
    )
    batch = Batch(IMG)
    (work,) = batch.apply(StepPlan(begun=(one,), advances=(Advance(0, 2),)))
    assert work.pictures == (PictureRows(first, 0, 1),)
    batch.accept([work], [])
    (work,) = batch.apply(StepPlan(advances=(Advance(0, 5, drafts=(IMG,)),)))
    assert work.pictures == (PictureRows(first, 1, 2), PictureRows(second, 0, 1))
    batch.accept([work], tokens(7, 8))
    (work,) = batch.apply(StepPlan())
    assert work.pictures == ()


def test_a_row_may_end_and_begin_in_one_plan():
    batch = started()
    (work,) = batch.apply(
        StepPlan(ended=(0,), begun=(begin(0, (4, 5)),), advances=(Advance(0, 2),))
    )
    assert work.token_ids == (4, 5)
    assert len(batch) == 1


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (StepPlan(ended=(3,)), "row 3 ends, but is not live"),
        (StepPlan(begun=(begin(0),)), "row 0 begins, but is live"),
        (StepPlan(begun=(Begin(1, (1,), 1, (), DRAWS),)), "begins with 1 of 1 computed"),
        (StepPlan(advances=(Advance(3, 1),)), "or one that is not live"),
        (StepPlan(advances=(Advance(0, 1), Advance(0, 1))), "advances a row twice"),
        (StepPlan(advances=(Advance(0, 2),)), "misses 1 tokens, has 0 drafts and is told"),
        (StepPlan(advances=(Advance(0, 1, drafts=(5,)),)), "misses 1 tokens, has 1 drafts"),
        (StepPlan(advances=(Advance(0, 2, drafts=(5,), masks=(b"1",)),)), "has 1 masks"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan, message):
    with pytest.raises(PlanViolationError, match=message):
        started().apply(plan)


def random_plan(batch: Batch, chance: random.Random) -> StepPlan:
    """A plan that fits, of any kind."""
    ended = tuple(state.row for state in batch if chance.random() < 0.1)
    live = {state.row: state for state in batch if state.row not in ended}
    begun = tuple(
        Begin(
            row,
            tuple(chance.choices(range(20, 60), k=chance.randint(1, 12))),
            0,
            (chance.randrange(99),),
            chance.choice([DRAWS, PENALISED]),
        )
        for row in set(range(6)) - live.keys()
        if chance.random() < 0.4
    )
    missing = {row: state.missing for row, state in live.items()}
    missing |= {one.row: len(one.token_ids) for one in begun}
    advances = []
    for row, count in missing.items():
        kind = chance.random()
        blocks = (chance.randrange(99),) if chance.random() < 0.3 else ()
        if kind < 0.4:
            drafts = tuple(chance.choices(range(20, 24), k=chance.randint(0, 3)))
            advances.append(Advance(row, count + len(drafts), blocks, drafts))
        elif kind < 0.7:
            advances.append(Advance(row, chance.randint(0, count), blocks))
    return StepPlan(ended, begun, tuple(advances))


def digest(batch: Batch) -> bytes:
    return pickle.dumps(
        [
            (state.row, state.token_ids, state.computed, state.block_table, state.drawn)
            for state in batch
        ]
    )


def drawn_for(works: list[Work], chance: random.Random) -> list[TokenLogprob]:
    return tokens(*(chance.choice(range(20, 24)) for work in works for _ in work.samples))


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False))
def test_mirrors_stay_the_same_when_only_plans_are_told(chance):
    leader, follower = Batch(IMG), Batch(IMG)
    for _ in range(30):
        plan = random_plan(leader, chance)
        told = unpacked(pickle.loads(pickle.dumps(packed(plan))))
        mine, theirs = leader.apply(plan), follower.apply(told)
        for one, other in zip(mine, theirs, strict=True):
            assert one.token_ids == other.token_ids
            assert one.samples == other.samples
        drawn = drawn_for(mine, chance)
        assert leader.accept(mine, drawn) == follower.accept(theirs, drawn)
        assert digest(leader) == digest(follower)
        for state in leader:
            assert 0 < state.missing <= len(state.token_ids)
