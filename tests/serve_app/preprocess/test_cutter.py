"""How pictures are named, and what is kept of them for whom."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve_app.byte_cache import ByteCache
from serve_app.errors import InvalidRequest
from serve_app.messages import PictureSource
from serve_app.preparing import Preprocess
from serve_app.preprocess.cutter import Cut, Cutter, For
from serve_app.preprocess.turns import Turn
from serve_app.preprocess.wish import Frames
from serve_app.preprocess.workers import Workers
from shards.pixels import patches
from tests.serve_app.preprocess.pictures import encoded, noise
from tests.serve_app.preprocess.shared_workers import shared_workers

CONFIG = Preprocess(workers=1, max_picture_bytes=200_000)
OURS = For(Turn("ours", "request"), "ours")
THEIRS = For(Turn("theirs", "request"), "theirs")
PICTURE = PictureSource(encoded(noise(100, 60), "PNG"), "place")


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """What workers were asked to do."""
    done: list[str] = []
    for name in ("look", "cut"):
        method: Callable[..., Any] = getattr(Workers, name)

        async def spied(workers, *arguments, name=name, method=method):
            done.append(name)
            return await method(workers, *arguments)

        monkeypatch.setattr(Workers, name, spied)
    return done


def cutter(cache_bytes: int = 2**20, watch: Callable[[int], None] | None = None) -> Cutter[Any]:
    return Cutter(CONFIG, shared_workers(CONFIG), np.copy, ByteCache(cache_bytes, watch))


async def cut(
    cutter: Cutter[Any], source: PictureSource = PICTURE, whom: For = OURS, side: int = 1024
) -> tuple[Cut[Any], ...]:
    sight = await cutter.look(source, whom)
    return await cutter.cut(source, sight, [side] * len(sight.sizes), whom)


async def test_what_a_team_sent_before_is_not_decoded_again(asked):
    kept: list[int] = []
    ours = cutter(watch=kept.append)
    [first] = await cut(ours)
    [again] = await cut(ours)
    assert asked == ["look", "cut"]
    assert (first.known, again.known) == (False, True)
    assert first.picture == again.picture
    assert np.array_equal(first.patches, again.patches)
    assert np.array_equal(again.patches, patches(noise(100, 60))[1])
    assert kept[-1] - kept[0] == first.patches.nbytes


async def test_nothing_tells_one_team_what_another_has_sent(asked):
    both = cutter()
    [mine] = await cut(both)
    [other] = await cut(both, whom=THEIRS)
    assert asked == ["look", "cut"] * 2
    assert not other.known
    assert mine.picture == other.picture


async def test_who_shares_a_salt_shares_what_is_kept(asked):
    both = cutter()
    await cut(both)
    [other] = await cut(both, whom=For(THEIRS.turn, OURS.salt))
    assert other.known
    assert asked == ["look", "cut"]


async def test_another_size_is_another_picture(asked):
    ours = cutter()
    [large], [small] = await cut(ours), await cut(ours, side=40)
    assert asked == ["look", "cut", "cut"]
    assert large.picture.content != small.picture.content
    assert small.picture.grid == patches(noise(100, 60), 40)[0]


async def test_a_side_that_scales_nothing_is_no_other_picture(asked):
    ours = cutter()
    [one], [other] = await cut(ours), await cut(ours, side=100)
    assert one.picture == other.picture
    assert other.known


async def test_each_frame_has_its_own_name():
    frames = [noise(30, 30), noise(30, 30, 4).convert("RGB")]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    first, second = await cut(cutter(), PictureSource(data, "place", wish=Frames(count=2)))
    assert first.picture.content != second.picture.content
    [alone] = await cut(cutter(), PictureSource(data, "place"))
    assert alone.picture == first.picture


async def test_without_room_nothing_is_kept(asked):
    none = cutter(cache_bytes=0)
    [one], [other] = await cut(none), await cut(none)
    assert asked == ["look", "cut"] * 2
    assert not one.known
    assert not other.known


async def test_the_oldest_make_room():
    """What 100 x 60 pixels become takes 86,016 bytes."""
    two = cutter(cache_bytes=200_000)
    sources = [PictureSource(encoded(noise(100, 60), "PNG") + bytes(n), "place") for n in range(3)]
    for source in sources:
        await cut(two, source)
    assert [(await cut(two, source))[0].known for source in reversed(sources)] == [
        True,
        True,
        False,
    ]


async def test_a_refused_file_is_looked_at_anew(asked):
    ours = cutter()
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            await cut(ours, PictureSource(b"nothing", "place"))
    assert asked == ["look", "look"]


async def test_more_bytes_than_allowed_reach_no_worker(asked):
    with pytest.raises(InvalidRequest) as caught:
        await cut(cutter(), PictureSource(bytes(200_001), "place"))
    assert (caught.value.code, caught.value.param) == ("picture_too_large", "place")
    assert caught.value.message == "the picture has too many bytes; at most 200000 are read"
    assert asked == []


async def test_pixels_that_are_not_what_the_header_says_are_refused(monkeypatch):
    """They would be shown as they were not counted."""
    sight = await cutter().look(PICTURE, OURS)
    with pytest.raises(InvalidRequest, match="damaged or incomplete"):
        await cutter().cut(
            PICTURE, type(sight)(((400, 400),), sight.numbers, sight.total), [1024], OURS
        )
