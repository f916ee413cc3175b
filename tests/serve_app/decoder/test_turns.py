"""Turns: nobody waits for more than one piece of each other team, and nothing is done twice."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve_app.decoder.turns import Turns
from shards.errors import QueueFullError


class Bench:
    """Work that waits to be let go on, and is written down."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(1)
        self.done: list[str] = []
        self.go = threading.Event()

    def work(self, key: str) -> str:
        self.go.wait(10)
        self.done.append(key)
        if key == "bad":
            raise ValueError(key)
        return key.upper()

    def turns(self, patience_s: float = 10, team_limit: int = 10) -> Turns[str, str]:
        return Turns(self.pool, self.work, patience_s=patience_s, team_limit=team_limit)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.go.set()
    bench.pool.shutdown()


async def started(turns: Turns[str, str], *asked: tuple[str, str]) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(turns.result(key, team)) for key, team in asked]
    await _until(lambda: all(key in turns._jobs for key, _ in asked))
    return tasks


async def _until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.001)


async def test_teams_take_turns(bench):
    turns = bench.turns()
    flood = [(f"a{index}", "a") for index in range(4)]
    tasks = await started(turns, *flood, ("b0", "b"), ("b1", "b"))
    bench.go.set()
    assert await asyncio.gather(*tasks) == ["A0", "A1", "A2", "A3", "B0", "B1"]
    assert bench.done == ["a0", "b0", "a1", "b1", "a2", "a3"]


async def test_what_is_asked_twice_is_done_once_even_if_one_goes(bench):
    turns = bench.turns()
    _, first, second = await started(turns, ("x", "a"), ("y", "a"), ("y", "b"))
    first.cancel()
    await asyncio.sleep(0)
    bench.go.set()
    assert await second == "Y"
    assert bench.done == ["x", "y"]
    assert not turns._jobs
    assert not turns._queues


async def test_what_nobody_waits_for_is_not_begun(bench):
    turns = bench.turns(team_limit=1)
    (running,) = await started(turns, ("x", "a"))
    await _until(lambda: turns._jobs["x"].begun)
    (gone,) = await started(turns, ("y", "a"))
    gone.cancel()
    await asyncio.wait({gone})
    (third,) = await started(turns, ("z", "a"))
    bench.go.set()
    assert (await running, await third, bench.done) == ("X", "Z", ["x", "z"])


async def test_a_long_line_is_refused_and_only_to_the_team_that_made_it(bench):
    turns = bench.turns(team_limit=1)
    (running,) = await started(turns, ("x", "a"))
    await _until(lambda: turns._jobs["x"].begun)
    waiting = await started(turns, ("y", "a"))
    with pytest.raises(QueueFullError):
        await turns.result("z", "a")
    waiting += await started(turns, ("z", "b"))
    bench.go.set()
    assert await asyncio.gather(running, *waiting) == ["X", "Y", "Z"]


async def test_patience_is_for_what_has_not_begun(bench):
    turns = bench.turns(patience_s=0.05)
    (running,) = await started(turns, ("x", "a"))
    await _until(lambda: turns._jobs["x"].begun)
    with pytest.raises(QueueFullError):
        await turns.result("y", "a")
    assert not running.done()
    bench.go.set()
    assert await running == "X"
    assert bench.done == ["x"]


async def test_a_failure_reaches_all_and_stops_nothing(bench):
    turns = bench.turns()
    tasks = await started(turns, ("bad", "a"), ("bad", "b"), ("good", "a"))
    bench.go.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError, str]
