"""A group's numbers: counters from the engine's totals, waits from a request's timing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from math import inf
from typing import Any, cast

import pytest

from serve_app.config import Decoder
from serve_app.decoder.group_report import GroupReport
from serve_app.messages import Features, Generate
from serve_app.telemetry import DecoderMetrics
from shards.grid import Grid
from shards.request import Delta, FinishReason, GenerationRequest, Picture, Sampling, Timing
from shards.stats import EngineStats

STATS = EngineStats(
    running=2,
    waiting=1,
    blocks_total=64,
    blocks_free=60,
    prompt_tokens_total=100,
    generated_tokens_total=10,
    unmetered_tokens_total=2,
    steps_total=4,
    last_token_at=7.0,
    step_seconds_total=0.8,
    step_sequences_total=12,
)


class Recorded:
    """Every instrument by name: what it was given, labels in its key."""

    def __init__(self) -> None:
        self.values: defaultdict[str, list[float]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        values = self.values

        class Instrument:
            def inc(self, value: float = 1.0, **labels: str) -> None:
                values[":".join((name, *labels.values()))].append(value)

            def set(self, value: float) -> None:
                values[name].append(value)

            observe = set

        return Instrument()


@pytest.fixture
def metrics():
    return Recorded()


@pytest.fixture
def report(metrics):
    return GroupReport(cast(DecoderMetrics, metrics), Decoder(max_waiting=9), clock=lambda: 8.5)


def test_counters_grow_by_what_is_new_and_gauges_show_what_is(metrics, report):
    report.hear(STATS)
    report.tell()
    later = replace(STATS, generated_tokens_total=13, steps_total=6, step_seconds_total=1.0)
    report.hear(later)
    report.tell()
    report.tell()
    assert metrics.values["tokens:generated"] == [10, 3]
    assert metrics.values["tokens:prompt"] == [100, 0]
    assert metrics.values["tokens:unmetered"] == [2, 0]
    assert metrics.values["step_count"] == [4, 2]
    assert metrics.values["step_seconds"] == pytest.approx([0.8, 0.2])
    assert metrics.values["step_sequences"] == [12, 0]
    assert metrics.values["generated_tokens"] == [10, 13]
    assert metrics.values["running"] == [2, 2]
    assert metrics.values["step_duration"] == pytest.approx([0.2, 0.1])


def test_the_age_of_the_last_token_is_told_while_nothing_happens(metrics, report):
    report.tell()
    assert "token_age" not in metrics.values
    report.hear(replace(STATS, last_token_at=None))
    report.tell()
    report.hear(STATS)
    report.tell()
    report.tell()
    assert metrics.values["token_age"] == [inf, 1.5, 1.5]
    assert metrics.values["waiting_limit"] == [9]


def test_ends_are_counted_by_reason_and_waits_once_a_request(metrics, report):
    timing = Timing(arrived=1.0, started=1.5, first_token=3.5, last_token=4.0)
    on_its_way = Delta("r", 0, (5,), 4, 1)
    ended = replace(on_its_way, finish_reason=FinishReason.STOP, timing=timing)
    never = replace(ended, finish_reason=FinishReason.ABORT, timing=Timing(arrived=1.0))
    for delta in (on_its_way, ended, replace(ended, choice=1), never):
        report.ended(delta)
    assert metrics.values["finished:stop"] == [1, 1]
    assert metrics.values["finished:abort"] == [1]
    assert metrics.values["queue_seconds"] == [0.5]
    assert metrics.values["prefill_seconds"] == [2.0]


def test_pictures_that_came_without_features_were_kept(metrics, report):
    one, two = (Picture(Grid(1, 2), content) for content in ("one", "two"))
    request = GenerationRequest("r", (1,), Sampling(seed=0, max_tokens=1), (one, two, one))
    report.began(Generate(request, (Features(two, None),)))
    report.began(Generate(request, (Features(one, None), Features(two, None))))
    report.began(Generate(replace(request, pictures=())))
    assert metrics.values["kept_pictures"] == [2]
