"""What is counted reaches Ray once a flush, begins at 0 and is not forgotten."""

from __future__ import annotations

import gc
import time
from typing import Any

import pytest

from serve_app import instruments
from serve_app.instruments import Count, Flusher, Level
from tests.waiting import wait_until


class Metric:
    """What Ray is told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, dict[str, str]]] = []

    def _record(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        self.told.append((value, tags))

    def set(self, value: float) -> None:
        self.told.append((value, {}))


@pytest.fixture
def metric():
    return Metric()


def test_a_counter_tells_sums_and_only_what_is_new(metric):
    count = Count(metric, ("kind",))
    count.begin(kind="prompt")
    for _ in range(3):
        count.inc(2, kind="prompt")
    count.inc(kind="generated")
    count.inc(0, kind="unmetered")
    assert metric.told == [(0, {"kind": "prompt"})]
    count.flush()
    count.flush()
    assert metric.told[1:] == [(6, {"kind": "prompt"}), (1, {"kind": "generated"})]


def test_a_label_that_is_missing_is_a_bug(metric):
    with pytest.raises(KeyError):
        Count(metric, ("kind",)).inc()


def test_a_gauge_is_told_again_before_ray_forgets_it(metric, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    level = Level(metric)
    level.flush()
    assert metric.told == []
    level.set(3)
    level.set(4)
    level.flush()
    level.flush()
    assert metric.told == [(4, {})]
    now[0] += instruments.REMIND_S
    level.flush()
    level.set(5)
    level.flush()
    assert metric.told[1:] == [(4, {}), (5, {})]
    # Two of Ray's report intervals.
    assert instruments.REMIND_S + instruments.FLUSH_S < 20 / 2


def test_a_flusher_flushes_what_is_in_use(metric):
    flusher = Flusher(interval_s=0.01)
    level: Any = Level(metric)
    flusher.keep(level)
    level.set(1)
    assert wait_until(lambda: metric.told == [(1, {})], 5, 0.01)
    level.set(2)
    del level
    gc.collect()
    flusher.flush()
    assert metric.told in ([(1, {})], [(1, {}), (2, {})])
    assert not list(flusher._instruments)
