from __future__ import annotations

from collections import Counter

import pytest

from shards.engine import Engine
from shards.plan import kv_bytes_per_token, rank_parameters
from shards.roofline import (
    LARGE_DECODER_WEIGHTS,
    ROOFLINES,
    Hardware,
    Roofline,
    RooflineRunner,
    Work,
)
from shards.step import Advance, Begin, Draws, StepPlan
from tests.shards.engine_fixtures import EOS, VOCABULARY, drain, ids, text_request, tokens_of
from tests.shards.test_config import LARGE
from tests.shards.toy_grammar import Turns

LETTERS = ids("abcdefghijklmnopqrstuvwxyz")


class Time:
    """A clock that sleeping moves, ``late`` seconds further than asked."""

    def __init__(self, late: float = 0.0) -> None:
        self.now = 100.0
        self.late = late

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds + self.late


def begin(row: int, length: int, seed: int = 1, choice: int = 0, drawn: int = 0) -> Begin:
    """All but the last of ``length`` tokens are computed."""
    draws = Draws(seed=seed, choice=choice, temperature=1)
    return Begin(row, (20,) * length, length - 1, (), draws, drawn)


def decoding(*lengths: int) -> StepPlan:
    """One new token of each sequence."""
    return StepPlan(begun=tuple(begin(row, length) for row, length in enumerate(lengths)))


def draw(index: int = 0, seed: int = 1, choice: int = 0) -> int:
    """A runner's first, of an answer that began elsewhere."""
    one = begin(0, index + 1, seed, choice, drawn=index)
    ((drawn,),) = [result.tokens for result in RooflineRunner(LETTERS).run(StepPlan(begun=(one,)))]
    return drawn.token_id


def test_the_bounds_are_those_of_the_published_model():
    table = LARGE.text.vocab_size * LARGE.text.dim
    assert rank_parameters(LARGE).decoder - table == LARGE_DECODER_WEIGHTS
    for roofline in ROOFLINES.values():
        assert roofline.work.kv_bytes_per_token == kv_bytes_per_token(LARGE, 1, 2)


@pytest.mark.parametrize(
    ("name", "tokens_per_s"),
    # 4 x 2,039 GB/s over 2 x 122.2 GB, 2 x 2,039 over 122.2, 2,039 over 63.0.
    [
        ("pixtral-large-bf16-4xa100", 33.37),
        ("pixtral-large-int8-2xa100", 33.37),
        ("pixtral-large-int4-1xa100", 32.36),
    ],
)
def test_one_stream_is_bound_by_reading_the_weights(name, tokens_per_s):
    assert 1 / ROOFLINES[name].step_s(1, 1) == pytest.approx(tokens_per_s, abs=0.01)


def test_a_step_takes_the_longer_of_weights_and_arithmetic_and_then_the_cache():
    roofline = Roofline(
        Work(weight_bytes=100, flops_per_token=6, kv_bytes_per_token=5),
        Hardware(bytes_per_s=10, flops_per_s=2),
    )
    assert roofline.step_s(tokens=1, positions=1) == 100 / 10 + 5 / 10
    assert roofline.step_s(tokens=2, positions=10) == 100 / 10 + 10 * 5 / 10
    assert roofline.step_s(tokens=8, positions=12) == 8 * 6 / 2 + 12 * 5 / 10


def test_a_step_counts_what_is_computed_drafts_included():
    simulated = Time()
    roofline = Roofline(Work(0, 1, 100), Hardware(bytes_per_s=1, flops_per_s=1000))
    runner = RooflineRunner(LETTERS, roofline, clock=simulated.clock, sleep=simulated.sleep)
    plan = StepPlan(begun=(begin(0, 5), begin(1, 3)), advances=(Advance(0, 4, drafts=(7, 7, 7)),))
    runner.run(plan)
    assert simulated.now - 100 == pytest.approx(5 / 1000 + (8 + 3) * 100)


def test_steps_take_their_time_however_late_sleeping_ends():
    simulated = Time(late=0.003)
    roofline = Roofline(Work(100, 0, 0), Hardware(bytes_per_s=10_000, flops_per_s=1))
    runner = RooflineRunner(LETTERS, roofline, clock=simulated.clock, sleep=simulated.sleep)
    runner.run(decoding(1, 2))
    for _ in range(99):
        runner.run(StepPlan())
    assert simulated.now - 100 == pytest.approx(100 * 0.01 + 0.003)


def test_a_step_that_needed_longer_than_the_hardware_is_not_made_up_for():
    simulated = Time()
    roofline = Roofline(Work(100, 0, 0), Hardware(bytes_per_s=10_000, flops_per_s=1))
    runner = RooflineRunner(LETTERS, roofline, clock=simulated.clock, sleep=simulated.sleep)
    runner.run(decoding(1))
    simulated.now += 5.0
    runner.run(StepPlan())
    assert simulated.now == pytest.approx(100 + 0.01 + 5 + 0.01)


def test_without_a_roofline_nobody_sleeps():
    def sleep(seconds: float) -> None:
        raise AssertionError("slept")

    runner = RooflineRunner(LETTERS, sleep=sleep)
    assert len(runner.run(decoding(1, 2, 3))) == 3


def test_tokens_depend_on_seed_choice_and_index_alone_and_are_spread_evenly():
    draws = [draw(index) for index in range(200)]
    runner = RooflineRunner(LETTERS)
    runner.run(StepPlan(begun=(begin(1, 9, seed=3),)))
    together = runner.run(StepPlan(begun=(begin(0, 5),)))
    rest = [runner.run(StepPlan()) for _ in range(199)]
    mine = [result for step in (together, *rest) for result in step if result.row == 0]
    assert [result.tokens[0].token_id for result in mine] == draws
    assert draws != [draw(index, seed=2) for index in range(200)]
    assert draws != [draw(index, choice=1) for index in range(200)]
    counts = Counter(draw(index) for index in range(26 * 100))
    assert set(counts) == set(LETTERS)
    assert 50 < min(counts.values()) <= max(counts.values()) < 200


def test_an_engine_over_it_answers_to_the_last_token():
    engine = Engine(
        RooflineRunner(LETTERS),
        vocabulary=VOCABULARY,
        num_blocks=64,
        block_size=4,
        max_context_tokens=200,
        max_batch_sequences=8,
        max_step_tokens=16,
        max_waiting=8,
    )
    for name in "abc":
        engine.add(text_request(name, max_tokens=20, logprobs=1))
    deltas = drain(engine)
    for name in "abc":
        assert len(tokens_of(deltas, name)) == 20
    assert all(one.top[0] == (one.token_id, 0.0) for delta in deltas for one in delta.logprobs)


def test_under_a_grammar_they_are_what_it_allows():
    grammar = Turns("ab", "c")
    engine = Engine(
        RooflineRunner(ids("xyz")),
        vocabulary=VOCABULARY,
        num_blocks=64,
        block_size=4,
        max_context_tokens=200,
        max_batch_sequences=8,
        max_step_tokens=16,
        max_waiting=8,
    )
    engine.add(text_request("r", max_tokens=6, min_tokens=6), grammar=grammar)
    drain(engine)
    # The end, where it is allowed, comes first; this runner knows no bans.
    assert grammar.matchers[0].said == [*ids("ac"), EOS]


def test_answers_are_made_of_something():
    with pytest.raises(ValueError, match="token_ids"):
        RooflineRunner(())
