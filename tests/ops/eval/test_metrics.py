"""Each measure against its published definition, worked out by hand."""

from __future__ import annotations

import pytest

from ops.eval.metrics import anls, distance, exact, relaxed, same_json


@pytest.mark.parametrize(
    ("answer", "right", "score"),
    [
        ("red", ["red"], 1),
        ("Red.", ["red"], 1),
        ("  top   left ", ["top left"], 1),
        ("red", ["blue", "red"], 1),
        ("dark red", ["red"], 0),
        ("", ["red"], 0),
    ],
)
def test_exact_match(answer, right, score):
    assert exact(answer, right) == score


@pytest.mark.parametrize(
    ("answer", "right", "score"),
    [
        ("100", "100", 1),
        ("105", "100", 1),  # off by exactly 5 %
        ("95", "100", 1),
        ("105.1", "100", 0),
        ("-100", "100", 0),
        ("9.6", "10", 1),
        ("12 %", "0.12", 1),  # a percentage is a hundredth
        ("12", "12 %", 0),
        ("0", "0", 1),  # nothing is within a share of 0
        ("0.01", "0", 0),
        ("Germany", "germany", 1),  # words are compared, not measured
        ("Germani", "Germany", 0),
        ("three", "3", 0),
        ("2,000", "2000", 0),  # the published code reads no thousands separators
    ],
)
def test_relaxed_accuracy_is_chartqas(answer, right, score):
    assert relaxed(answer, [right]) == score


@pytest.mark.parametrize(
    ("one", "other", "steps"),
    [
        ("kitten", "sitting", 3),
        ("flaw", "lawn", 2),
        ("", "abc", 3),
        ("abc", "", 3),
        ("same", "same", 0),
        ("intention", "execution", 5),
    ],
)
def test_edit_distance(one, other, steps):
    assert distance(one, other) == distance(other, one) == steps


@pytest.mark.parametrize(
    ("answer", "right", "score"),
    [
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("12.40", ["12.40"], 1),
        ("12.4", ["12.40"], 1 - 1 / 5),
        ("Total 12.40", ["total 12.40"], 1),  # case does not count
        ("cat", ["dog"], 0),
        ("ab", ["ax"], 0),  # half wrong is wrong
        ("abc", ["abx"], 1 - 1 / 3),
        ("hello", ["help", "hello!"], 1 - 1 / 6),  # the best of several
        ("", ["a"], 0),
    ],
)
def test_anls_is_docvqas(answer, right, score):
    assert anls(answer, right) == pytest.approx(score)


def test_json_is_compared_by_value():
    assert same_json('{"a": 1, "b": "x"}', ['{"b":"x","a":1}']) == 1
    assert same_json('{"a": "1"}', ['{"a": 1}']) == 0
    assert same_json('{"a": 1', ['{"a": 1}']) == 0
