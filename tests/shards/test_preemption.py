"""When the cache runs out: who goes, what is kept, and that all come to an end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shards.engine import Engine
from shards.grid import Grid
from shards.request import Tenant
from tests.shards.engine_fixtures import (
    VOCAB_SIZE,
    WatchedRunner,
    drain,
    picture_request,
    simulated_engine,
    text_request,
    tokens_of,
)
from tests.shards.repeating import repeating
from tests.shards.toy_grammar import Turns


def tight(**limits) -> tuple[Engine, WatchedRunner]:
    """Room for one long answer and a half; nobody is asked how much is still to come."""
    values = {"num_blocks": 16, "max_batch_sequences": 4, "headroom_tokens": 0} | limits
    return simulated_engine(**values)


def long_request(name: str, prompt: str = "hello", **sampling):
    return text_request(name, prompt, **({"max_tokens": 50, "ignore_eos": True} | sampling))


def alone(request, features=(), **limits) -> tuple[int, ...]:
    engine, _ = simulated_engine(num_blocks=256, max_step_tokens=64, **limits)
    engine.add(request, features)
    return tokens_of(drain(engine), request.request_id)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("drafts", [0, 4])
def test_who_is_put_back_says_in_the_end_what_it_would_have_said(cache, drafts):
    engine, _ = tight(prefix_cache=cache, max_drafts=drafts)
    requests = [long_request(f"r{number}", seed=number) for number in range(6)]
    for request in requests:
        engine.add(request)
    deltas = drain(engine)
    stats = engine.stats()
    assert stats.put_back_total > 0
    for request in requests:
        assert tokens_of(deltas, request.request_id) == alone(request)
    assert stats.generated_tokens_total == 6 * 50
    assert stats.prompt_tokens_total + stats.cached_tokens_total == 6 * 5


def test_who_came_first_is_never_put_back():
    engine, runner = tight()
    for number in range(4):
        engine.add(long_request(f"r{number}", seed=number))
    first_ends = None
    while engine.has_work:
        ended = [one.request_id for one in engine.step() if one.finish_reason is not None]
        if "r0" in ended:
            first_ends = len(runner.ran)
        if first_ends is None:
            assert 0 not in runner.ran[-1].ended
    # In as many steps as it would have taken alone.
    assert first_ends == 50


def test_who_was_put_back_finds_its_own_blocks():
    engine, _ = tight(prefix_cache=False)
    for number in range(2):
        engine.add(long_request(f"r{number}", seed=number))
    drain(engine)
    stats = engine.stats()
    # All but the last blocks of it were still there, each time.
    assert 0 < stats.recomputed_tokens_total < 54 * stats.put_back_total


def test_who_was_put_back_goes_before_those_who_came_later():
    engine, _ = tight(num_blocks=14)
    for name in ("a", "b", "c", "d", "e"):
        engine.add(long_request(name, max_tokens=45))
    ends = []
    while engine.has_work:
        ends += [one.request_id for one in engine.step() if one.finish_reason is not None]
    assert engine.stats().put_back_total > 0
    assert ends == ["a", "b", "c", "d", "e"]


def seated(engine: Engine) -> set[str]:
    return {choice.generation.request.request_id for choice in engine._scheduler.seated}


def test_the_team_that_had_most_gives_way():
    engine, _ = tight(num_blocks=24)
    for name in ("big a", "big b", "big c"):
        engine.add(replace(long_request(name, name), tenant=Tenant("big")))
    for _ in range(8):
        engine.step()
    engine.add(replace(long_request("small", "small"), tenant=Tenant("small")))
    while engine.stats().put_back_total == 0:
        engine.step()
    assert seated(engine) == {"big a", "big b", "small"}


@pytest.mark.parametrize("other", [{"tenant": Tenant("small")}, {"priority": 1}])
def test_the_longest_seated_stays_whoever_the_order_of_service_puts_last(other):
    """Without this two long answers could put each other back for ever."""
    engine, _ = tight()
    engine.add(replace(long_request("big", "big"), tenant=Tenant("big")))
    for _ in range(5):
        engine.step()
    engine.add(replace(long_request("other", "other"), **other))
    while engine.stats().put_back_total == 0:
        engine.step()
    assert seated(engine) == {"big"}


def test_a_lower_priority_gives_way():
    engine, _ = tight()
    engine.add(long_request("first", "first"))
    engine.add(long_request("low", "low"))
    engine.add(replace(long_request("high", "high"), priority=1))
    while engine.stats().put_back_total == 0:
        engine.step()
    assert seated(engine) == {"first", "high"}


def test_pictures_are_brought_again_to_who_begins_again():
    grid = Grid(4, 5)
    rows = [np.arange(60, dtype=np.float32).reshape(20, 3)]
    engine, runner = tight(num_blocks=24, max_step_tokens=32)
    requests = [
        picture_request(f"r{number}", grid, content=str(number), max_tokens=40, ignore_eos=True)
        for number in range(4)
    ]
    for request in requests:
        engine.add(request, rows)
    deltas = drain(engine)
    assert len(runner.given) > 4
    assert not runner.pictures
    for request in requests:
        assert tokens_of(deltas, request.request_id) == alone(request, rows)


def test_a_grammar_goes_on_where_it_was():
    engine, _ = tight()
    requests = [long_request(f"r{number}", seed=number) for number in range(4)]
    grammars = [Turns("abc", "def", "gh") for _ in requests]
    for request, grammar in zip(requests, grammars, strict=True):
        engine.add(request, grammar=grammar)
    deltas = drain(engine)
    assert engine.stats().put_back_total > 0
    for request, grammar in zip(requests, grammars, strict=True):
        (matcher,) = grammar.matchers
        assert tuple(matcher.said) == tokens_of(deltas, request.request_id)


@pytest.mark.parametrize("step", range(40))
def test_abort_frees_who_was_put_back(step):
    engine, _ = tight(num_blocks=14)
    for name in ("a", "b"):
        engine.add(long_request(name, max_tokens=45))
    for _ in range(step):
        engine.step()
    (last,) = engine.abort("b")
    engine.check()
    assert last.completion_tokens <= 45
    drain(engine)
    assert engine.stats().blocks_free == 14


def test_a_prompt_is_paid_once_however_often_it_is_computed():
    engine, _ = tight(prefix_cache=False)
    for number in range(5):
        engine.add(long_request(f"r{number}", "a prompt of some length", max_tokens=40))
    latest = {}
    while engine.has_work:
        engine.step()
        latest.update({tally.request_id: tally for tally in engine.tallies()})
    assert engine.stats().put_back_total > 0
    assert {(tally.text, tally.cached_text, tally.output) for tally in latest.values()} == {
        (23, 0, 40)
    }


def test_what_another_computed_meanwhile_is_not_paid_as_computed():
    grid = Grid(4, 5)
    rows = [np.arange(60, dtype=np.float32).reshape(20, 3)]
    engine, runner = simulated_engine(max_batch_sequences=2, max_step_tokens=9, block_size=4)
    engine.add(replace(long_request("first", "first"), tenant=Tenant("a")))
    engine.step()
    halfway = replace(picture_request("halfway", grid, max_tokens=1), tenant=Tenant("a", 1, "salt"))
    engine.add(halfway, rows)
    engine.step()
    engine.add(replace(halfway, request_id="other", tenant=Tenant("b", 1, "salt")), rows)
    latest, ended = {}, []
    while engine.has_work:
        ended += [one for one in engine.step() if one.finish_reason is not None]
        latest.update({tally.request_id: tally for tally in engine.tallies()})
    stats = engine.stats()
    assert stats.put_back_total == 1
    assert [one.request_id for one in ended] == ["other", "halfway", "first"]
    # 3 of text, 24 of a picture, 2 of text: it computed the first 8 and then the last, and found
    # the others when it came back.
    tally = latest["halfway"]
    assert (tally.text, tally.image, tally.cached_text, tally.cached_image) == (3 + 1, 5, 1, 19)
    assert ended[1].cached_tokens == 20
    assert stats.cached_tokens_total == 8 + 20
    assert stats.queried_tokens_total == 5 + 2 * 29
    # What the ranks computed is what is paid as computed, but for what was computed again.
    paid = sum(one.text + one.image + one.output for one in latest.values()) - len(latest)
    assert runner.computed == paid + stats.recomputed_tokens_total


def test_a_crowd_that_never_fits_together_does_not_thrash():
    """Twice as much as the cache holds: what is computed again stays a fraction."""
    engine, runner = simulated_engine(
        repeating(VOCAB_SIZE),
        num_blocks=100,
        max_batch_sequences=16,
        max_step_tokens=64,
        headroom_tokens=16,
    )
    for number in range(60):
        engine.add(long_request(f"r{number}", max_tokens=60, seed=number))
    drain(engine)
    stats = engine.stats()
    assert stats.put_back_total > 0
    assert stats.recomputed_tokens_total < 0.25 * runner.computed
