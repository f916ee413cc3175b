import asyncio

import numpy as np
import pytest

from serve_app.feature_cache import FeatureCache, KeptFeatures, Known
from shards.grid import Grid
from shards.request import Picture

GRID = Grid(1, 4)
ONE = np.zeros((4, 8), np.float32).nbytes


class Encoder:
    """Makes features of ones; ``held`` until released, then fails if told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended = 0
        self.released = asyncio.Event()
        self.released.set()
        self.error: Exception | None = None

    async def __call__(self) -> np.ndarray:
        self.begun += 1
        await self.released.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.ended += 1
        return np.ones((4, 8), np.float32)


def known(content: str, salt: str = "team", grid: Grid = GRID) -> Known:
    return Known(Picture(grid, content), salt)


async def ask(cache: FeatureCache, encoder: Encoder, *pictures: Known) -> list[bool]:
    """For each picture, whether it was known."""
    return [(await cache.features(picture, encoder))[1] for picture in pictures]


@pytest.fixture
async def encoder() -> Encoder:
    return Encoder()


async def test_a_picture_that_comes_again_is_not_encoded_again(encoder):
    cache = FeatureCache(KeptFeatures(4 * ONE))
    first, was_known = await cache.features(known("a"), encoder)
    again, is_known = await cache.features(known("a"), encoder)
    assert (was_known, is_known, encoder.begun) == (False, True, 1)
    np.testing.assert_array_equal(first, again)


async def test_another_team_size_or_content_is_another_picture(encoder):
    cache = FeatureCache(KeptFeatures(8 * ONE))
    others = known("a", "other team"), known("a", grid=Grid(2, 2)), known("b")
    assert await ask(cache, encoder, known("a"), *others) == [False] * 4
    assert await ask(cache, encoder, known("a"), *others) == [True] * 4


async def test_the_least_recently_used_goes_when_room_is_needed(encoder):
    told: list[int] = []
    cache = FeatureCache(KeptFeatures(2 * ONE, told.append))
    await ask(cache, encoder, known("a"), known("b"), known("a"), known("c"))
    assert told == [ONE, 2 * ONE, 2 * ONE]
    assert await ask(cache, encoder, known("a"), known("c")) == [True, True]
    assert await ask(cache, encoder, known("b")) == [False]


@pytest.mark.parametrize("max_bytes", [0, ONE - 1])
async def test_what_has_no_room_is_not_kept(encoder, max_bytes):
    cache = FeatureCache(KeptFeatures(max_bytes))
    assert await ask(cache, encoder, known("a"), known("a")) == [False, False]


async def test_those_who_ask_at_once_wait_for_one_encoding(encoder):
    cache = FeatureCache(KeptFeatures(0))
    encoder.released.clear()
    asking = [asyncio.create_task(cache.features(known("a"), encoder)) for _ in range(5)]
    await asyncio.sleep(0.01)
    encoder.released.set()
    assert (
        sorted(was_known for _, was_known in await asyncio.gather(*asking)) == [False] + [True] * 4
    )
    assert encoder.begun == 1


async def test_who_leaves_leaves_the_encoding_to_the_others(encoder):
    cache = FeatureCache(KeptFeatures(ONE))
    encoder.released.clear()
    first = asyncio.create_task(cache.features(known("a"), encoder))
    await asyncio.sleep(0)
    second = asyncio.create_task(cache.features(known("a"), encoder))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    encoder.released.set()
    assert (await second)[1]
    assert (encoder.begun, encoder.ended) == (1, 1)


async def test_nobody_waits_so_nothing_is_encoded_and_who_comes_then_begins_anew(encoder):
    cache = FeatureCache(KeptFeatures(ONE))
    encoder.released.clear()
    first = asyncio.create_task(cache.features(known("a"), encoder))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    second = asyncio.create_task(cache.features(known("a"), encoder))
    await asyncio.sleep(0.01)
    encoder.released.set()
    assert not (await second)[1]
    assert (encoder.begun, encoder.ended) == (2, 1)


async def test_an_error_is_told_to_whose_pixels_they_were_and_others_try_their_own(encoder):
    cache = FeatureCache(KeptFeatures(ONE))
    encoder.released.clear()
    encoder.error = ValueError("pixels lost")
    asking = [asyncio.create_task(cache.features(known("a"), encoder)) for _ in range(3)]
    await asyncio.sleep(0.01)
    encoder.released.set()
    with pytest.raises(ValueError, match="pixels lost"):
        await asking[0]
    assert sorted([(await other)[1] for other in asking[1:]]) == [False, True]
    assert encoder.begun == 2


async def test_a_part_of_a_larger_pass_is_kept_without_the_rest():
    """Or the budget would be of what is looked at and not of what is held."""
    whole = np.ones((1000, 8), np.float32)

    async def encode() -> np.ndarray:
        return whole[:4]

    cache = FeatureCache(KeptFeatures(ONE))
    await cache.features(known("a"), encode)
    kept, _ = await cache.features(known("a"), encode)
    assert kept.base is None


def test_what_was_found_stays_with_whoever_has_it(encoder):
    kept = KeptFeatures(ONE)
    kept.keep(known("a"), np.ones((4, 8), np.float32))
    found = kept.get(known("a"))
    kept.keep(known("b"), np.zeros((4, 8), np.float32))
    assert kept.get(known("a")) is None
    np.testing.assert_array_equal(found, np.ones((4, 8), np.float32))


def test_what_is_kept_twice_is_kept_once():
    told: list[int] = []
    kept = KeptFeatures(4 * ONE, told.append)
    first = kept.keep(known("a"), np.ones((4, 8), np.float32))
    assert kept.keep(known("a"), np.ones((4, 8), np.float32)) is first
    assert told == [ONE]
