"""How much may be in hand."""

from __future__ import annotations

import pytest

from serve_app.errors import Overloaded
from serve_app.preprocess.in_hand import InHand


def refuses(hand: InHand, pictures: int, size: int) -> bool:
    try:
        with hand.taken(pictures, size):
            return False
    except Overloaded:
        return True


def test_beyond_its_pictures_or_bytes_others_are_refused():
    hand = InHand(4, 100)
    with hand.taken(3, 50):
        assert not refuses(hand, 1, 50)
        assert refuses(hand, 2, 1)
        assert refuses(hand, 1, 51)
        with pytest.raises(Overloaded) as caught, hand.taken(2, 1):
            pass
        assert (caught.value.status, caught.value.retry_after_s) == (503, 2)
    assert not refuses(hand, 4, 100)


def test_who_is_alone_is_never_too_large():
    assert not refuses(InHand(4, 100), 40, 1000)


def test_text_alone_is_never_refused():
    hand = InHand(1, 1)
    with hand.taken(9, 9):
        assert not refuses(hand, 0, 0)


def test_what_fails_is_given_back():
    hand = InHand(2, 10)
    with pytest.raises(ValueError, match="inside"), hand.taken(2, 10):
        raise ValueError("inside")
    with hand.taken(1, 5):
        assert not refuses(hand, 1, 5)
