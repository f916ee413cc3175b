"""Who comes next."""

from __future__ import annotations

import pytest

from serve_app.preprocess.turns import Turn, Turns


def order(*asked: tuple[str, str, int]) -> list[str]:
    """(team, request, how many pictures) in the order of their coming → requests as served."""
    turns: Turns[str] = Turns()
    for team, request, count in asked:
        for _ in range(count):
            turns.add(Turn(team, request), request)
    return [turns.take() for _ in range(len(turns))]


def test_a_request_of_many_pictures_holds_nobody_up():
    assert order(("a", "many", 4), ("b", "one", 1), ("c", "two", 2)) == [
        *("many", "one", "two"),
        *("many", "two"),
        *("many", "many"),
    ]


def test_requests_of_a_team_take_turns_and_share_its_turn():
    served = order(("a", "first", 2), ("a", "second", 2), ("b", "other", 3))
    assert served == ["first", "other", "second", "other", "first", "other", "second"]


def test_who_was_served_comes_after_who_waits():
    turns: Turns[str] = Turns()
    for _ in range(3):
        turns.add(Turn("a", "long"), "long")
    assert turns.take() == "long"
    turns.add(Turn("b", "late"), "late")
    assert [turns.take() for _ in range(3)] == ["long", "late", "long"]


def test_of_one_request_pictures_keep_their_order():
    turns: Turns[int] = Turns()
    for number in range(5):
        turns.add(Turn("a", "r"), number)
    assert [turns.take() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_nothing_is_left_of_who_was_served():
    turns: Turns[int] = Turns()
    turns.add(Turn("a", "r"), 1)
    turns.take()
    assert len(turns) == 0
    with pytest.raises(KeyError):
        turns.take()
