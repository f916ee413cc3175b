"""Every scenario runs on a tiny model, and its books are right; how fast it is, is not asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from ops.bench.engine import sharing
from ops.bench.engine.copying import copying
from ops.bench.engine.lab import SCENARIOS, Lab, measure
from ops.bench.engine.lookup import document_prompt
from ops.bench.engine.model import written
from ops.bench.engine.ours import Ours
from ops.bench.engine.prompts import Prompt, picture_prompt, text_prompt
from ops.bench.engine.report import Report, Row
from ops.bench.engine.run import Run, Spread, TokensDifferError, require_equal
from ops.bench.engine.speed import alone, eight, sixteen_pictures
from ops.bench.engine.theirs import Theirs
from ops.nano.checkpoint import SEED, random_values
from tests.ops.bench.conftest import BUDGET, LIMITS, TINY, MadeUp

IN_PROCESS = ("alone", "eight", "first-token", "sixteen-pictures")


def numbers(row: Row) -> list[float]:
    found = [goal.value for goal in row.goals]
    for value in row.figures.values():
        found += [value.best, value.median] if isinstance(value, Spread) else [value]
    return found


def has_sane_books(row: Row) -> bool:
    return bool(row.goals) and all(math.isfinite(n) and n >= 0 for n in numbers(row))


@pytest.mark.parametrize("name", IN_PROCESS)
def test_it_runs_and_its_figures_are_numbers(name, lab):
    row = SCENARIOS[name](lab)
    assert row.scenario == name.replace("-", " ")
    assert has_sane_books(row)


@pytest.mark.parametrize("scenario", [alone, eight])
def test_a_bandwidth_is_measured_before_each_run_that_is_held_against_it(scenario, lab):
    matvec = MadeUp()
    asked: list[int] = []

    class Noted(Ours):
        def run(self, *what, **more) -> Run:
            asked.append(matvec.asked)
            return super().run(*what, **more)

    ours = Noted.load(lab.model)
    budget = replace(BUDGET, repeats=2)
    limits = (LIMITS,) if scenario is alone else ()
    row = scenario(ours, lab.theirs, *limits, matvec, budget)
    assert asked == [1, 2, 3]
    rates = row.figures["weights read, GB/s"]
    assert isinstance(rates, Spread)
    what = "weights read, of the best matrix-vector"
    shares = {goal.what: goal.value for goal in row.goals} | dict(row.figures)
    assert shares[what] == pytest.approx(rates.best / 10)  # of the made-up 10 GB/s


def test_random_requests_are_all_answered_or_aborted_and_nothing_leaks(lab):
    row = SCENARIOS["soak"](lab)
    assert all(goal.met for goal in row.goals)
    answered, aborted = row.figures["answered"], row.figures["aborted"]
    assert isinstance(answered, int)
    assert isinstance(aborted, int)
    assert answered + aborted == BUDGET.soak
    assert min(answered, aborted) > 10


def test_a_second_turn_computes_only_what_is_new(lab):
    row = SCENARIOS["second-turn"](lab)
    assert has_sane_books(row)
    goals = {goal.what: goal for goal in row.goals}
    assert goals["tokens computed twice, in blocks"].met
    assert goals["patches encoded again"].met


def test_a_counted_second_turn_that_says_something_else_is_noticed(lab, monkeypatch):
    afresh, calls = sharing._afresh, []

    def wrong_once_it_counts(*asked) -> Run:
        run = afresh(*asked)
        calls.append(run)
        return run if len(calls) == 1 else replace(run, tokens=((-1, -1),))

    monkeypatch.setattr(sharing, "_afresh", wrong_once_it_counts)
    with pytest.raises(TokensDifferError, match="second turn"):
        SCENARIOS["second-turn"](lab)


def test_the_sixteen_are_warmed_up_by_a_round_that_does_not_count(lab, monkeypatch):
    answers: list[int] = []

    def noted(ours: Ours, prompts: Sequence[Prompt], new_tokens: int) -> Run:
        answers.append(new_tokens)
        return run(ours, prompts, new_tokens)

    run = Ours.run
    monkeypatch.setattr(Ours, "run", noted)
    counted = replace(BUDGET, new_tokens=8, repeats=3)
    sixteen_pictures(lab.ours, lab.theirs, counted)
    assert answers == [2, 4, 4]


def test_two_teams_share_by_weight(lab):
    assert has_sane_books(SCENARIOS["two-teams"](lab))


def test_lookup_answers_the_same_in_fewer_steps(lab):
    row = SCENARIOS["prompt-lookup"](lab)
    assert has_sane_books(row)
    steps = row.figures["tokens a step"]
    assert isinstance(steps, float)
    assert steps > 1.5


@pytest.mark.multirank
def test_two_ranks_say_the_same_and_their_communication_is_timed(lab):
    row = SCENARIOS["two-ranks"](lab)
    assert has_sane_books(row)
    share = row.figures["alone: share of time in collectives"]
    assert isinstance(share, Spread)
    assert 0 < share.best < 1


@pytest.mark.cluster
def test_the_whole_stack_says_what_the_bare_engine_says(lab):
    assert has_sane_books(SCENARIOS["whole-stack"](lab))


def test_a_copying_model_copies(cache):
    model = written("copies", TINY, cache, copying(TINY))
    ours = Ours.load(model)
    for number in range(2):
        prompt, document = document_prompt(model, number, 64)
        assert ours.run([prompt], 64).tokens == (document,)


@pytest.mark.parametrize(
    "config",
    [
        replace(TINY, text=replace(TINY.text, layers=1)),
        replace(TINY, text=replace(TINY.text, dim=192)),
    ],
    ids=["one layer", "narrow stream"],
)
def test_a_shape_that_cannot_copy_is_refused(config):
    with pytest.raises(ValueError, match="needs 2 layers"):
        copying(config)


def test_one_matrix_that_differs_is_noticed_whatever_was_timed(lab, tiny, cache):
    def values(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return random_values(name, shape, SEED + (name == "layers.1.feed_forward.w2.weight"))

    stranger = Lab(tiny, BUDGET, cache)
    other = Theirs(written("other", TINY, cache, values), lab.ours.bans)
    stranger.__dict__.update(ours=lab.ours, theirs=other, limits=lab.limits)
    for name in ("alone", "first-token"):
        with pytest.raises(TokensDifferError):
            SCENARIOS[name](stranger)


def test_the_same_weights_give_the_same_tokens_one_by_one_and_all_together(lab):
    for make in (
        lambda number: text_prompt(lab.model, number, 20),
        lambda number: picture_prompt(lab.model, number, 48, 12),
    ):
        prompts = [make(number) for number in range(3)]
        mine = lab.ours.run(prompts, 6)
        require_equal("static batch", mine.tokens, lab.theirs.run(prompts, 6).tokens)
        require_equal("back to back", mine.tokens, lab.theirs.back_to_back(prompts, 6).tokens)


def test_what_was_measured_is_kept_when_the_rest_fails(lab, tiny, cache):
    kept: list[Report] = []
    broken = Lab(tiny, replace(BUDGET, side=0), cache)
    broken.__dict__["limits"] = lab.limits
    with pytest.raises(ValueError, match="1x1 pixels"):
        measure(broken, ("alone", "first-token"), kept.append)
    assert [row.scenario for row in kept[-1].rows] == ["alone"]
