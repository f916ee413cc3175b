"""An answer's speed as its caller sees it: a few observations each, none a token."""

from __future__ import annotations

from typing import cast

import pytest

from serve_app.answer_pace import AnswerPace
from serve_app.telemetry import GatewayMetrics
from shards.request import Delta
from tests.serve_app.decoder.test_group_report import Recorded


def delta(tokens: int, choice: int = 0) -> Delta:
    return Delta("r", choice, tuple(range(tokens)), prompt_tokens=7, completion_tokens=tokens)


@pytest.fixture
def now():
    return [10.0]


@pytest.fixture
def metrics():
    return Recorded()


@pytest.fixture
def pace(metrics, now):
    return AnswerPace(cast(GatewayMetrics, metrics), clock=lambda: now[0])


def test_an_answer_in_pieces(metrics, now, pace):
    for at, some in ((10.5, (delta(1), delta(1, 1))), (10.6, (delta(2),)), (11.0, (delta(2),))):
        now[0] = at
        pace.delivered(some)
    pace.ended()
    assert metrics.values["time_to_first_token"] == [0.5]
    assert metrics.values["prompt_tokens"] == [7]
    assert sum(metrics.values["completion_tokens"]) == 6
    assert metrics.values["token_seconds"] == pytest.approx([0.5 / 4])
    assert metrics.values["longest_gap"] == pytest.approx([0.4])


def test_one_token_has_no_pace_and_none_nothing_at_all(metrics, pace):
    pace.ended()
    assert not metrics.values
    pace.delivered((delta(1),))
    pace.ended()
    assert "token_seconds" not in metrics.values
