"""Whatever comes in whatever order: every request ends, and says what it would have said alone."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from shards.engine import Engine
from shards.errors import ContextLengthError
from shards.grid import Grid
from shards.request import Delta, FinishReason, GenerationRequest, Tenant
from tests.shards.engine_fixtures import (
    VOCAB_SIZE,
    drain,
    picture_request,
    simulated_engine,
    text_request,
    tokens_of,
)
from tests.shards.repeating import repeating
from tests.shards.toy_grammar import Turns

GRIDS = (Grid(1, 1), Grid(2, 3), Grid(3, 2))
TEAMS = (Tenant("a", 1, "a"), Tenant("b", 3, "b"), Tenant("c", 0.5, "b"))


@dataclass(frozen=True)
class Arrival:
    request: GenerationRequest
    features: Sequence[np.ndarray]
    groups: tuple[str, ...]
    arrives_at: int
    abort_at: int | None

    def add_to(self, engine: Engine) -> None:
        grammar = Turns(*self.groups) if self.groups else None
        engine.add(self.request, self.features, grammar=grammar)


def rows_of(grid: Grid, content: int) -> np.ndarray:
    """Features as different as the pictures are."""
    return np.arange(grid.patches * 3, dtype=np.float32).reshape(-1, 3) + 100 * content


@st.composite
def arrivals(draw: st.DrawFn) -> list[Arrival]:
    found = []
    for number in range(draw(st.integers(1, 7))):
        sampling = {
            "seed": draw(st.integers(0, 1)),
            "max_tokens": (longest := draw(st.integers(1, 14))),
            "n": draw(st.integers(1, 3)),
            "stop": draw(st.sampled_from([(), (), ("a",), ("ab", "c")])),
            "min_tokens": draw(st.integers(0, longest // 2)),
            "temperature": draw(st.sampled_from([0, 1])),
        }
        grids = draw(st.lists(st.sampled_from(GRIDS), max_size=2))
        content = draw(st.integers(0, 1))
        if grids:
            request = picture_request(f"r{number}", *grids, content=str(content), **sampling)
        else:
            prompt = draw(st.text("ab", min_size=1, max_size=20))
            request = text_request(f"r{number}", prompt, **sampling)
        request = replace(
            request,
            tenant=draw(st.sampled_from(TEAMS)),
            priority=draw(st.sampled_from([0, 0, 0, 1, 5])),
        )
        features = [rows_of(grid, content) for grid in grids]
        groups = draw(st.sampled_from([(), (), (), ("ab", "cde"), ("a", "b", "abc")]))
        abort_at = draw(st.none() | st.none() | st.integers(0, 20))
        arrival = Arrival(request, features, groups, draw(st.integers(0, 8)), abort_at)
        found.append(arrival)
    return found


engines = st.fixed_dictionaries(
    {
        "num_blocks": st.sampled_from([12, 16, 24, 64]),
        "block_size": st.sampled_from([1, 3, 4]),
        "prefix_cache": st.booleans(),
        "max_drafts": st.sampled_from([0, 1, 4, 7]),
        "headroom_tokens": st.sampled_from([0, 1, 4, 64]),
    }
)
batches = st.sampled_from([(3, 3), (3, 5), (8, 64)])


def blocks_needed(request: GenerationRequest, block_size: int) -> int:
    """Every choice to its end, with the prompt's full blocks (but for its last token) shared."""
    sampling, prompt = request.sampling, len(request.prompt)
    each = math.ceil((prompt + sampling.max_tokens - 1) / block_size)
    return sampling.n * each - (sampling.n - 1) * ((prompt - 1) // block_size)


def admit(engine: Engine, arrival: Arrival, num_blocks: int, block_size: int) -> bool:
    fits = blocks_needed(arrival.request, block_size) <= num_blocks
    try:
        arrival.add_to(engine)
    except ContextLengthError:
        assert not fits
        return False
    assert fits
    return True


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(arrivals(), engines, batches, st.booleans())
def test_any_interleaving_ends_every_choice_once_and_gives_what_it_gives_alone(
    coming: list[Arrival], options: dict[str, Any], batch: tuple[int, int], repeats: bool
) -> None:
    next_token = repeating(VOCAB_SIZE) if repeats else None
    engine, runner = simulated_engine(
        next_token, max_batch_sequences=batch[0], max_step_tokens=batch[1], **options
    )
    deltas: list[Delta] = []
    accepted: dict[str, Arrival] = {}
    aborted = set()
    now = 0
    while now < 20 or engine.has_work:
        for arrival in coming:
            name = arrival.request.request_id
            if arrival.arrives_at == now and admit(
                engine, arrival, options["num_blocks"], options["block_size"]
            ):
                accepted[name] = arrival
            if arrival.abort_at == now and name in accepted:
                deltas += engine.abort(name)
                aborted.add(name)
                engine.check()
        deltas += engine.step()
        engine.check()
        now += 1
        assert now < 1000, "the engine does not come to an end"
    stats = engine.stats()
    assert (stats.blocks_free, stats.running, stats.waiting) == (options["num_blocks"], 0, 0)
    assert not runner.pictures
    event(f"put back {min(stats.put_back_total, 3)}")
    event(f"cached {stats.cached_tokens_total > 0}, accepted {stats.accepted_tokens_total > 0}")
    for name, arrival in accepted.items():
        alone, _ = simulated_engine(
            next_token, num_blocks=256, max_step_tokens=256, max_context_tokens=256
        )
        arrival.add_to(alone)
        compare(arrival.request, deltas, drain(alone), aborted=name in aborted)


def compare(
    request: GenerationRequest, deltas: list[Delta], expected: list[Delta], aborted: bool
) -> None:
    for choice in range(request.sampling.n):
        mine = [d for d in deltas if (d.request_id, d.choice) == (request.request_id, choice)]
        reasons = [one.finish_reason for one in mine if one.finish_reason is not None]
        assert len(reasons) == 1
        last = mine[-1]
        assert last.finish_reason is not None
        got = tokens_of(deltas, request.request_id, choice)
        whole = tokens_of(expected, request.request_id, choice)
        assert last.completion_tokens == len(got)
        if reasons == [FinishReason.ABORT]:
            assert aborted
            assert got == whole[: len(got)]
        else:
            assert got == whole
            ends = [one for one in expected if one.choice == choice and one.finish_reason]
            assert (last.finish_reason, last.stop) == (ends[0].finish_reason, ends[0].stop)


def test_two_thousand_requests_come_and_go() -> None:
    """More than the cache holds at any time, one in five aborted, of teams that cannot wait."""
    chance = random.Random(5)
    engine, runner = simulated_engine(
        repeating(VOCAB_SIZE),
        num_blocks=60,
        max_batch_sequences=12,
        max_step_tokens=40,
        max_waiting=2000,
        headroom_tokens=8,
        max_drafts=3,
    )
    deltas: list[Delta] = []
    sent: dict[str, Arrival] = {}
    aborted = set()
    while len(sent) < 2000 or engine.has_work:
        for _ in range(chance.randrange(4) if len(sent) < 2000 else 0):
            arrival = random_arrival(chance, f"r{len(sent)}")
            arrival.add_to(engine)
            sent[arrival.request.request_id] = arrival
        if chance.random() < 0.3 and engine._generations:
            name = chance.choice(list(engine._generations))
            deltas += engine.abort(name)
            aborted.add(name)
        deltas += engine.step()
        if chance.random() < 0.1:
            engine.check()
    stats = engine.stats()
    assert (stats.blocks_free, stats.running, stats.waiting) == (60, 0, 0)
    assert not runner.pictures
    assert min(stats.put_back_total, stats.cached_tokens_total, stats.accepted_tokens_total) > 100
    assert len(aborted) > 100
    drafted = sum(len(advance.drafts) for plan in runner.ran for advance in plan.advances)
    accepted = sum(max(len(delta.token_ids) - 1, 0) for delta in deltas)
    rejected = sum(tally.rejected_draft for tally in engine.tallies())
    assert rejected == drafted - accepted == stats.rejected_tokens_total > 100
    by_name: dict[str, list[Delta]] = {name: [] for name in sent}
    for delta in deltas:
        by_name[delta.request_id].append(delta)
    for name, arrival in sent.items():
        alone, _ = simulated_engine(repeating(VOCAB_SIZE), num_blocks=256, max_step_tokens=256)
        arrival.add_to(alone)
        compare(arrival.request, by_name[name], drain(alone), aborted=name in aborted)


def random_arrival(chance: random.Random, name: str) -> Arrival:
    grids = chance.choice([(), (), (Grid(2, 3),), (Grid(3, 2), Grid(1, 1))])
    content = chance.randrange(6)
    sampling: dict[str, Any] = {
        "seed": chance.randrange(3),
        "max_tokens": chance.randrange(1, 40),
        "n": chance.choice([1, 1, 1, 2, 3]),
        "stop": chance.choice([(), (), ("abc",)]),
    }
    if grids:
        request = picture_request(name, *grids, content=str(content), **sampling)
    else:
        prompt = "".join(chance.choices("ab", k=chance.randrange(1, 30)))
        request = text_request(name, prompt, **sampling)
    request = replace(request, tenant=chance.choice(TEAMS), priority=chance.choice([0, 0, 0, 0, 3]))
    features = [rows_of(grid, content) for grid in grids]
    groups = chance.choice([(), (), ("ab", "cde")])
    return Arrival(request, features, groups, 0, None)
