"""Detail and the operator's caps as the largest side that fits, found by trying every side."""

from __future__ import annotations

import random

import pytest

from serve_app.errors import InvalidRequest
from serve_app.preprocess.sizing import (
    LEAST_SIDE,
    LEAST_TOKENS,
    LOW_SIDE,
    PictureLimits,
    Scaling,
    Sized,
    sized,
)
from serve_app.preprocess.wish import Detail
from shards.grid import Size, patch_grid

FREE = PictureLimits(1024)
DETAILS: list[Detail] = ["auto", "low", "high", "original"]


def one(size: Size, detail: Detail = "auto", limits: PictureLimits = FREE) -> Sized:
    [only] = sized([(size, detail)], limits)
    return only


def tokens(*pictures: Sized) -> int:
    return sum(patch_grid(*each.size, each.max_side).tokens for each in pictures)


def test_without_caps_only_the_model_s_side_counts():
    assert one((2000, 1500)) == Sized((2000, 1500), 1024, Scaling.MODEL)
    for size in ((1024, 1024), (640, 480), (1, 1)):
        assert one(size).scaling is None
        assert one(size).scaled == size
    assert tokens(one((5000, 5000))) == 4160


@pytest.mark.parametrize("detail", ["auto", "high", "original"])
def test_other_details_than_low_are_as_large_as_can_be(detail):
    assert one((3000, 200), detail) == one((3000, 200))


def test_low_detail_takes_272_tokens_at_the_most():
    low = one((4000, 4000), "low")
    assert (low.max_side, low.scaling) == (LOW_SIDE, Scaling.DETAIL)
    assert tokens(low) == 272
    assert one((256, 100), "low").scaling is None


def test_a_picture_gets_the_largest_side_that_its_cap_allows():
    rng = random.Random(1)
    for _ in range(200):
        size = (rng.randint(1, 3000), rng.randint(1, 3000))
        cap = rng.randint(LEAST_TOKENS, 4500)
        detail = rng.choice(DETAILS)
        free, capped = one(size, detail), one(size, detail, PictureLimits(1024, cap))
        if tokens(free) <= cap:
            assert capped == free
            continue
        fits = [side for side in range(1, free.max_side) if patch_grid(*size, side).tokens <= cap]
        assert (capped.max_side, capped.scaling) == (max(fits), Scaling.PICTURE_LIMIT)


def test_no_picture_is_too_large_for_the_least_cap():
    rng = random.Random(2)
    for _ in range(500):
        size = (rng.randint(1, 60_000), rng.randint(1, 60_000))
        capped = one(size, limits=PictureLimits(1024, LEAST_TOKENS))
        assert tokens(capped) <= LEAST_TOKENS
        assert capped.max_side >= min(LEAST_SIDE, *size)


def test_the_pictures_of_a_request_share_the_largest_side_that_fits():
    rng = random.Random(3)
    for _ in range(60):
        pictures = [
            ((rng.randint(1, 2500), rng.randint(1, 2500)), rng.choice(DETAILS))
            for _ in range(rng.randint(1, 12))
        ]
        cap = rng.randint(300, 12_000)
        limits = PictureLimits(1024, rng.choice([None, 1500]), cap)
        alone = sized(pictures, PictureLimits(1024, limits.picture_tokens))
        together = sized(pictures, limits)
        if tokens(*alone) <= cap:
            assert together == alone
            continue

        def at(side: int, alone: tuple[Sized, ...] = alone) -> list[Sized]:
            return [Sized(each.size, min(each.max_side, side), None) for each in alone]

        common = max(side for side in range(LEAST_SIDE, 1025) if tokens(*at(side)) <= cap)
        assert [each.max_side for each in together] == [each.max_side for each in at(common)]
        for before, after in zip(alone, together, strict=True):
            shrunk = before.max_side > common
            assert after.scaling == (Scaling.REQUEST_LIMIT if shrunk else before.scaling)


def test_large_pictures_shrink_first():
    large, small = sized(
        [((4000, 3000), "auto"), ((200, 100), "auto")], PictureLimits(1024, None, 600)
    )
    assert (large.max_side, large.scaling) == (400, Scaling.REQUEST_LIMIT)
    assert (small.scaled, small.scaling) == ((200, 100), None)


def test_more_than_a_request_may_hold_even_when_tiny_is_refused_with_the_numbers():
    many: list[tuple[Size, Detail]] = [((100, 100), "auto")] * 10
    assert tokens(*sized(many, PictureLimits(1024, None, 200))) == 200
    with pytest.raises(InvalidRequest) as caught:
        sized(many, PictureLimits(1024, None, 199))
    assert (caught.value.param, caught.value.code) == ("messages", "too_many_picture_tokens")
    assert caught.value.message == (
        "10 pictures take 200 tokens even at 64 pixels a side, and a request's may take 199; send"
        " fewer"
    )


def test_a_text_has_no_pictures():
    assert sized([], PictureLimits(1024, 20, 20)) == ()
