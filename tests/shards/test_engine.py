from __future__ import annotations

import math

import numpy as np
import pytest

from shards.errors import ContextLengthError, GroupError, QueueFullError, RequestError
from shards.grid import Grid
from shards.request import Delta, FinishReason, GenerationRequest, Sampling
from shards.simulated import scripted
from tests.shards.engine_fixtures import (
    EOS,
    IMG,
    IMG_BREAK,
    TOOL_CALLS,
    VOCAB_SIZE,
    drain,
    ids,
    picture_request,
    simulated_engine,
    text_request,
    tokens_of,
)
from tests.shards.toy_grammar import Turns, TurnsMatcher


def features(*grids: Grid) -> list[np.ndarray]:
    return [np.ones((grid.patches, 3), dtype=np.float32) for grid in grids]


def saying(reply: tuple[int, ...], **limits):
    return simulated_engine(scripted(reply), **limits)[0]


# -- endings ----------------------------------------------------------------------------------


def test_an_answer_ends_at_end_of_sequence_and_counts_it():
    engine = saying((*ids("hi"), EOS))
    engine.add(text_request("r", "hello", max_tokens=9))
    deltas = drain(engine)
    assert [delta.token_ids for delta in deltas] == [(*ids("h"),), (*ids("i"),), (EOS,)]
    assert deltas[-1] == Delta("r", 0, (EOS,), 5, 3, FinishReason.STOP)
    assert [delta.completion_tokens for delta in deltas] == [1, 2, 3]


def test_an_answer_ends_at_max_tokens():
    engine = saying(ids("hi"))
    engine.add(text_request("r", max_tokens=3))
    last = drain(engine)[-1]
    assert (last.finish_reason, last.completion_tokens) == (FinishReason.LENGTH, 3)


def test_a_stop_token_is_named():
    engine = saying(ids("abc"))
    engine.add(text_request("r", max_tokens=9, stop_token_ids=ids("b")))
    last = drain(engine)[-1]
    assert (last.finish_reason, last.stop) == (FinishReason.STOP, ids("b")[0])
    assert last.completion_tokens == 2


def test_a_stop_string_spread_over_tokens_ends_the_answer():
    engine = saying(ids("one two three "))
    engine.add(text_request("r", max_tokens=20, stop=("zzz", "two")))
    deltas = drain(engine)
    assert tokens_of(deltas, "r") == ids("one two")
    assert (deltas[-1].finish_reason, deltas[-1].stop) == (FinishReason.STOP, "two")


def test_a_stop_string_at_the_last_token_counts_as_stop():
    engine = saying(ids("one two three "))
    engine.add(text_request("r", max_tokens=7, stop=("two",)))
    assert drain(engine)[-1].finish_reason is FinishReason.STOP


def spec_of_first_step(request: GenerationRequest):
    seen = []

    def next_token(tokens, sample):
        seen.append(sample)
        return ids("a")[0]

    engine, _ = simulated_engine(next_token)
    engine.add(request)
    drain(engine)
    return seen


def test_end_and_stop_tokens_are_banned_before_min_tokens():
    stop = ids("b")
    specs = spec_of_first_step(text_request("r", max_tokens=3, min_tokens=2, stop_token_ids=stop))
    banned = [{EOS, *stop} & set(spec.banned) for spec in specs]
    assert banned == [{EOS, *stop}, {EOS, *stop}, set()]


def test_ignore_eos_bans_it_throughout():
    specs = spec_of_first_step(text_request("r", max_tokens=2, ignore_eos=True))
    assert all(EOS in spec.banned for spec in specs)


def test_structure_tokens_are_always_banned_and_tool_calls_never():
    (spec,) = spec_of_first_step(text_request("r", max_tokens=1))
    assert {IMG, IMG_BREAK} <= set(spec.banned)
    assert not {EOS, TOOL_CALLS, *ids("a")} & set(spec.banned)


def test_the_draw_is_told_what_the_penalties_need_and_no_more():
    plain = spec_of_first_step(text_request("r", "aab", max_tokens=2))
    assert all(spec.output_counts == () and spec.draws.prompt_ids == () for spec in plain)
    penalised = spec_of_first_step(
        text_request("r", "bab", max_tokens=3, repetition_penalty=1.5, frequency_penalty=1)
    )
    assert penalised[2].draws.prompt_ids == (*ids("a"), *ids("b"))
    assert [spec.output_counts for spec in penalised] == [
        (),
        ((ids("a")[0], 1),),
        ((ids("a")[0], 2),),
    ]
    assert [spec.index for spec in penalised] == [0, 1, 2]


def test_logprobs_are_given_to_those_who_asked():
    engine, _ = simulated_engine()
    engine.add(text_request("with", logprobs=1, max_tokens=1))
    engine.add(text_request("without", max_tokens=1))
    with_, without = drain(engine)
    assert [one.token_id for one in with_.logprobs] == list(with_.token_ids)
    assert not math.isnan(with_.logprobs[0].logprob)
    assert without.logprobs == ()


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (GenerationRequest("r", (), Sampling(seed=0, max_tokens=1)), "messages: .* no tokens"),
        (
            GenerationRequest("r", (VOCAB_SIZE,), Sampling(seed=0, max_tokens=1)),
            f"messages: token id {VOCAB_SIZE} is not among",
        ),
        (text_request("r", stop_token_ids=(-1,)), "stop_token_ids: token id -1"),
        (text_request("r", logit_bias=((999, 1.0),)), "logit_bias: token id 999"),
        (
            GenerationRequest("r", (IMG,), Sampling(seed=0, max_tokens=1)),
            "messages: the prompt has 1 .* 0 pictures have 0 patches",
        ),
        (picture_request("r", Grid(1, 2)), "features: 0 arrays for 1 pictures"),
    ],
)
def test_a_request_that_cannot_run_is_refused_by_field(request_, reason):
    engine, runner = simulated_engine()
    with pytest.raises(RequestError, match=reason):
        engine.add(request_)
    assert not engine.has_work
    assert engine.step() == []
    assert runner.plans == 0


def test_pictures_of_another_shape_than_the_prompt_says_are_refused():
    request = picture_request("r", Grid(2, 3))
    turned = picture_request("r", Grid(3, 2))
    engine, _ = simulated_engine()
    swapped = GenerationRequest("r", request.prompt, request.sampling, turned.pictures)
    with pytest.raises(RequestError, match=r"at 3 is not the 3 rows of 2 .* of picture 0"):
        engine.add(swapped, features(Grid(3, 2)))
    with pytest.raises(RequestError, match=r"picture 0 has shape \(5, 3\), not \[6 patches"):
        engine.add(request, features(Grid(1, 5)))


def test_a_request_id_in_use_is_refused():
    engine, _ = simulated_engine()
    engine.add(text_request("r"))
    with pytest.raises(RequestError, match="'r' is being answered already"):
        engine.add(text_request("r"))
    drain(engine)
    engine.add(text_request("r"))


def test_a_refused_request_leaves_no_trace():
    engine, _ = simulated_engine(max_batch_sequences=1, max_waiting=1)
    engine.add(text_request("runs"))
    engine.add(text_request("waits"))
    with pytest.raises(QueueFullError):
        engine.add(text_request("late"))
    with pytest.raises(ContextLengthError):
        engine.add(text_request("long", max_tokens=400))
    assert engine.abort("late") == engine.abort("long") == ()
    assert {delta.request_id for delta in drain(engine)} == {"runs", "waits"}


# -- abort and pictures -----------------------------------------------------------------------


def test_abort_ends_every_unfinished_choice_and_frees_its_blocks_at_once():
    engine, _ = simulated_engine(scripted(ids("ab")))
    engine.add(text_request("r", "hello", max_tokens=9, n=2))
    engine.step()
    engine.step()
    engine.step()
    last = engine.abort("r")
    assert [(one.choice, one.finish_reason, one.token_ids) for one in last] == [
        (0, FinishReason.ABORT, ()),
        (1, FinishReason.ABORT, ()),
    ]
    assert [(one.prompt_tokens, one.completion_tokens) for one in last] == [(5, 3), (5, 2)]
    assert engine.stats().blocks_free == engine.stats().blocks_total
    assert not engine.has_work
    assert engine.abort("r") == ()


def test_abort_of_a_waiting_request_lets_the_next_in():
    engine, _ = simulated_engine(max_batch_sequences=1)
    for name in ("first", "second", "third"):
        engine.add(text_request(name))
    (last,) = engine.abort("second")
    assert (last.finish_reason, last.completion_tokens) == (FinishReason.ABORT, 0)
    assert {delta.request_id for delta in drain(engine)} == {"first", "third"}


def test_features_reach_the_ranks_only_when_their_request_runs_and_leave_with_its_prefill():
    engine, runner = simulated_engine(max_batch_sequences=1, max_step_tokens=6)
    grid = Grid(2, 3)  # positions 3..10 of a prompt of 13
    for name in ("first", "second"):
        engine.add(picture_request(name, grid, content=name, max_tokens=2), features(grid))
    held = []
    while engine.has_work:
        engine.step()
        held.append(sorted(key.request_id for key in runner.pictures))
    assert held == [["first"], [], [], [], ["second"], [], [], []]


@pytest.mark.parametrize("steps", range(6))
def test_abort_drops_the_pictures_whenever_it_comes(steps):
    engine, runner = simulated_engine(max_step_tokens=8)
    grids = (Grid(2, 3), Grid(3, 4))
    engine.add(picture_request("r", *grids, n=2, max_tokens=5), features(*grids))
    for _ in range(steps):
        engine.step()
    assert engine.abort("r")
    assert not runner.pictures
    engine.check()
    assert engine.stats().blocks_free == engine.stats().blocks_total


# -- counters and failure ---------------------------------------------------------------------


def test_stats_count_what_was_done():
    now = [5.0]
    engine, _ = simulated_engine(max_batch_sequences=2, max_step_tokens=4, clock=lambda: now[0])
    engine.add(text_request("r", "hello", max_tokens=2, n=2))
    engine.add(text_request("waits", "hi", max_tokens=1))
    assert (engine.stats().running, engine.stats().waiting) == (2, 1)
    engine.step()
    assert engine.stats().last_token_at is None
    assert engine.stats().prompt_tokens_total == 4
    now[0] = 7.0
    engine.step()
    assert engine.stats().last_token_at == 7.0
    drain(engine)
    stats = engine.stats()
    assert (stats.prompt_tokens_total, stats.generated_tokens_total) == (7, 5)
    assert (stats.running, stats.waiting, stats.blocks_free) == (0, 0, stats.blocks_total)
    assert stats.steps_total == 4


def test_after_a_failure_everything_raises():
    def fails(tokens, sample):
        raise GroupError("rank 1 of 2 lost its group")

    engine, _ = simulated_engine(fails)
    engine.add(text_request("r"))
    with pytest.raises(GroupError, match="rank 1 of 2"):
        engine.step()
    for call in (
        engine.step,
        lambda: engine.abort("r"),
        lambda: engine.add(text_request("s")),
    ):
        with pytest.raises(GroupError, match=r"failed before \(GroupError: rank 1 of 2"):
            call()
    assert engine.stats().running == 1


class Faulty(TurnsMatcher):
    """abcd by turns, but its mask after ``whole`` tokens allows nothing."""

    def __init__(self, whole: int) -> None:
        super().__init__([ids(letter) for letter in "abcd"])
        self.whole = whole

    def matcher(self) -> TurnsMatcher:
        return self

    def accept(self, token_id: int) -> None:
        if len(self.said) == self.whole:
            raise ValueError("nothing was allowed")
        super().accept(token_id)

    def _allowed(self, place: int) -> tuple[int, ...]:
        return super()._allowed(place) if place < self.whole else ()


@pytest.mark.parametrize("whole", range(9))
@pytest.mark.parametrize("max_drafts", [0, 4])
def test_a_grammar_at_fault_ends_its_own_answer_alone(whole, max_drafts, caplog):
    engine, runner = simulated_engine(max_drafts=max_drafts, max_step_tokens=32)
    said = {"max_tokens": 12, "ignore_eos": True}
    engine.add(text_request("faulty", "abcdabcd", **said), grammar=Faulty(whole))
    engine.add(text_request("other", "abcdabcd", **said), grammar=Turns("a", "b", "c", "d"))
    deltas = drain(engine)
    ended = {one.request_id: one for one in deltas if one.finish_reason is not None}
    assert ended["faulty"].finish_reason is FinishReason.ABORT
    assert ended["faulty"].completion_tokens == whole
    assert tokens_of(deltas, "faulty") == ids("abcdabcd")[:whole]
    assert tokens_of(deltas, "other") == ids("abcdabcdabcd")
    assert engine.stats().generated_tokens_total == whole + 12
    assert "choice 0 of faulty is ended" in caplog.text
    for plan in runner.ran:
        masks = [mask for advance in plan.advances for mask in advance.masks if mask]
        assert all(any(mask) for mask in masks)
