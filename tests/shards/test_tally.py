"""What the engine says it computed: its tallies, its counters and its deltas are one truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shards.engine import Engine
from shards.grid import Grid
from shards.request import Delta, FinishReason, GenerationRequest
from shards.simulated import scripted
from shards.tally import Tally
from tests.shards.engine_fixtures import (
    VOCAB_SIZE,
    WatchedRunner,
    ids,
    picture_request,
    simulated_engine,
    text_request,
)
from tests.shards.repeating import repeating

GRIDS = (Grid(1, 1), Grid(2, 3), Grid(3, 2))


def features(*grids: Grid) -> list[np.ndarray]:
    return [np.ones((grid.patches, 3), dtype=np.float32) for grid in grids]


def image_tokens(*grids: Grid) -> int:
    return sum(grid.rows * (grid.columns + 1) for grid in grids)


class Books:
    """The latest tally of each choice, as a journal's reader would keep them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.latest: dict[tuple[str, int, int], Tally] = {}

    def step(self) -> list[Delta]:
        deltas = self.engine.step()
        self.read()
        return deltas

    def drain(self) -> list[Delta]:
        deltas = []
        while self.engine.has_work:
            deltas += self.step()
        return deltas

    def read(self) -> tuple[Tally, ...]:
        tallies = self.engine.tallies()
        for tally in tallies:
            self.latest[tally.request_id, tally.attempt, tally.choice] = tally
        return tallies

    @property
    def totals(self) -> tuple[int, int]:
        """Prompt and generated tokens."""
        return (
            sum(tally.text + tally.image for tally in self.latest.values()),
            sum(tally.output for tally in self.latest.values()),
        )

    @property
    def rejected_drafts(self) -> int:
        return sum(tally.rejected_draft for tally in self.latest.values())


def wasted(runner: WatchedRunner, deltas: Sequence[Delta]) -> int:
    """Drafts that were computed, less those that brought a token of an answer: every token of a
    step but the first."""
    computed = sum(len(advance.drafts) for plan in runner.ran for advance in plan.advances)
    return computed - sum(max(len(delta.token_ids) - 1, 0) for delta in deltas)


def test_a_prompts_progress_is_told_before_any_token_came():
    engine, _ = simulated_engine(max_step_tokens=8)
    engine.add(text_request("r", "a long prompt here", max_tokens=2))
    books = Books(engine)
    assert books.step() == []
    assert books.latest == {("r", 1, 0): Tally("r", 1, 0, text=8)}
    books.drain()
    assert books.latest == {("r", 1, 0): Tally("r", 1, 0, text=18, output=2)}


def test_only_what_changed_is_told():
    engine, _ = simulated_engine(scripted(ids("ab")), max_step_tokens=32)
    engine.add(text_request("first", max_tokens=1))
    engine.add(text_request("second", max_tokens=2))
    engine.step()
    assert {tally.request_id for tally in engine.tallies()} == {"first", "second"}
    assert engine.tallies() == ()
    engine.step()
    assert engine.tallies() == (Tally("second", 1, 0, text=5, output=2),)


def test_picture_tokens_are_rows_times_columns_and_one():
    grids = (Grid(2, 3), Grid(3, 4))
    engine, _ = simulated_engine(max_step_tokens=64)
    request = picture_request("r", *grids, max_tokens=1)
    engine.add(request, features(*grids))
    (delta,) = engine.step()
    assert (delta.prompt_tokens, delta.image_tokens) == (len(request.prompt), image_tokens(*grids))
    (tally,) = engine.tallies()
    assert tally.image == image_tokens(*grids)
    assert tally.text == len(request.prompt) - image_tokens(*grids)


@pytest.mark.parametrize("steps", range(12))
def test_an_abort_in_the_middle_of_a_prefill_counts_only_what_was_computed(steps):
    """Three tokens a step: see | 2 rows of 3 and their ends | see | 3 rows of 4 … | ok"""
    grids = (Grid(2, 3), Grid(3, 4))
    engine, _ = simulated_engine(max_step_tokens=3, max_batch_sequences=1)
    request = picture_request("r", *grids, max_tokens=9)
    engine.add(request, features(*grids))
    books = Books(engine)
    for _ in range(steps):
        books.step()
    (last,) = engine.abort("r")
    computed = min(3 * steps, len(request.prompt))
    spelled = ids("see") + ids("ok")
    assert last.prompt_tokens == computed
    assert last.image_tokens == sum(token not in spelled for token in request.prompt[:computed])
    assert books.totals == (last.prompt_tokens, last.completion_tokens)


def test_a_request_that_never_ran_used_nothing():
    engine, _ = simulated_engine(max_batch_sequences=1)
    engine.add(text_request("runs"))
    engine.add(text_request("waits"))
    (last,) = engine.abort("waits")
    assert (last.prompt_tokens, last.image_tokens, last.completion_tokens) == (0, 0, 0)
    assert {tally.request_id for tally in engine.tallies()} <= {"runs"}


def test_the_prompt_counts_with_choice_0_whatever_the_others_compute_again():
    engine, _ = simulated_engine(max_step_tokens=64)
    engine.add(text_request("r", "hello", n=3, max_tokens=2, ignore_eos=True))
    books = Books(engine)
    deltas = books.drain()
    assert {tally.text for (_, _, choice), tally in books.latest.items() if choice} == {0}
    assert books.totals == (5, 6)
    assert {delta.prompt_tokens for delta in deltas} == {5}


def test_attempts_are_told_apart():
    engine, _ = simulated_engine()
    engine.add(replace(text_request("r", max_tokens=1), attempt=3))
    books = Books(engine)
    (delta,) = books.drain()
    assert delta.attempt == 3
    assert list(books.latest) == [("r", 3, 0)]


def test_what_nobody_answers_for_is_counted_apart():
    engine, _ = simulated_engine()
    engine.add(text_request("probe", "hi", max_tokens=3), metered=False)
    engine.add(text_request("r", "hello", max_tokens=1))
    books = Books(engine)
    books.drain()
    stats = engine.stats()
    assert {request_id for request_id, _, _ in books.latest} == {"r"}
    assert books.totals == (stats.prompt_tokens_total, stats.generated_tokens_total) == (5, 1)
    assert stats.unmetered_tokens_total == 2 + 3
    assert stats.last_token_at is not None


def test_drafts_that_are_refused_count_beside_the_answer():
    """After "abc" the prompt went on with "xa", and the answer does not."""
    engine, runner = simulated_engine(scripted(ids("abcyzw")), max_drafts=4, max_step_tokens=32)
    engine.add(text_request("r", "abcx", max_tokens=6))
    books = Books(engine)
    deltas = books.drain()
    assert books.latest == {("r", 1, 0): Tally("r", 1, 0, text=4, output=6, rejected_draft=2)}
    assert engine.stats().rejected_tokens_total == wasted(runner, deltas) == 2


def test_drafts_beyond_the_end_of_the_answer_were_computed_for_nothing():
    """ "def" is guessed after "abc", and all are right; but the answer ends with "e"."""
    engine, runner = simulated_engine(scripted(ids("abcdefg")), max_drafts=4, max_step_tokens=32)
    engine.add(text_request("r", "abcdef", max_tokens=20, stop=("e",)))
    books = Books(engine)
    deltas = books.drain()
    assert books.latest == {("r", 1, 0): Tally("r", 1, 0, text=6, output=5, rejected_draft=2)}
    assert engine.stats().rejected_tokens_total == wasted(runner, deltas) == 2


def test_what_nobody_answers_for_is_counted_apart_drafts_too():
    engine, _ = simulated_engine(scripted(ids("abcyzw")), max_drafts=4, max_step_tokens=32)
    engine.add(text_request("probe", "abcx", max_tokens=6), metered=False)
    books = Books(engine)
    books.drain()
    stats = engine.stats()
    assert books.latest == {}
    assert (stats.tallied, stats.unmetered_tokens_total) == (0, 4 + 6 + 2)


@st.composite
def workloads(draw):
    """Requests with when they come and when, if ever, they are aborted."""
    workload = []
    for number in range(draw(st.integers(1, 5))):
        sampling = {"max_tokens": draw(st.integers(1, 20)), "n": draw(st.integers(1, 3))}
        grids = draw(st.lists(st.sampled_from(GRIDS), max_size=2))
        prompt = draw(st.text("abc", min_size=1, max_size=20))
        request = (
            picture_request(f"r{number}", *grids, **sampling)
            if grids
            else text_request(f"r{number}", prompt, **sampling)
        )
        times = (draw(st.integers(0, 8)), draw(st.none() | st.integers(0, 14)))
        workload.append((request, grids, *times))
    return workload


@settings(max_examples=100, deadline=None)
@given(
    workloads(),
    st.sampled_from([(3, 3), (3, 5), (8, 64)]),
    st.sampled_from([0, 1, 7]),
    st.sampled_from([24, 64]),
)
def test_tallies_counters_and_deltas_agree_whatever_happens(workload, step, drafts, blocks):
    engine, runner = simulated_engine(
        repeating(VOCAB_SIZE),
        max_batch_sequences=step[0],
        max_step_tokens=step[1],
        max_drafts=drafts,
        num_blocks=blocks,
        headroom_tokens=0,
    )
    books = Books(engine)
    deltas: list[Delta] = []
    now = 0
    while now < 20 or engine.has_work:
        for request, grids, comes_at, abort_at in workload:
            if comes_at == now:
                engine.add(request, features(*grids))
            if abort_at == now:
                deltas += engine.abort(request.request_id)
        deltas += books.step()
        now += 1
    ends = {(d.request_id, d.choice): d for d in deltas if d.finish_reason is not None}
    stats = engine.stats()
    assert books.totals == (stats.prompt_tokens_total, stats.generated_tokens_total)
    assert books.rejected_drafts == stats.rejected_tokens_total == wasted(runner, deltas)
    event(f"put back {stats.put_back_total > 0}, rejected {books.rejected_drafts > 0}")
    drawn: Counter[tuple[str, int]] = Counter()
    for delta in deltas:
        drawn[delta.request_id, delta.choice] += len(delta.token_ids)
    for (request_id, choice), end in ends.items():
        tally = books.latest.get((request_id, 1, choice), Tally(request_id, 1, choice))
        assert tally.output == end.completion_tokens == drawn[request_id, choice]
        if choice == 0:
            assert _prompt(tally) == (end.prompt_tokens, end.image_tokens)
            cached = (tally.cached_text + tally.cached_image, tally.cached_image)
            assert cached == (end.cached_tokens, end.cached_image_tokens)
        if end.finish_reason is not FinishReason.ABORT:
            assert end.prompt_tokens == len(_request(workload, request_id).prompt)


def _prompt(tally: Tally) -> tuple[int, int]:
    """Tokens of the prompt, and of its pictures, wherever they came from."""
    image = tally.image + tally.cached_image
    return tally.text + tally.cached_text + image, image


def _request(
    workload: Sequence[tuple[GenerationRequest, Any, Any, Any]], request_id: str
) -> GenerationRequest:
    return next(request for request, *_ in workload if request.request_id == request_id)
