"""How much may be in hand."""

from __future__ import annotations

import pytest

from serve_app.errors import Overloaded
from serve_app.in_hand import InHand


def refuses(hand: InHand, amount: int) -> bool:
    try:
        with hand.taken(amount):
            return False
    except Overloaded:
        return True


def test_beyond_the_limit_others_are_told_to_come_back():
    hand = InHand(4)
    with hand.taken(3):
        assert not refuses(hand, 1)
        with pytest.raises(Overloaded, match="too many pictures") as caught, hand.taken(2):
            pass
        assert (caught.value.status, caught.value.retry_after_s) == (503, 2)
    assert not refuses(hand, 4)


def test_who_is_alone_is_never_too_large():
    assert not refuses(InHand(4), 40)


def test_who_takes_nothing_is_never_refused():
    hand = InHand(1)
    with hand.taken(9):
        assert not refuses(hand, 0)


def test_what_fails_is_given_back():
    hand = InHand(2)
    with pytest.raises(ValueError, match="inside"), hand.taken(2):
        raise ValueError("inside")
    with hand.taken(1):
        assert not refuses(hand, 1)
