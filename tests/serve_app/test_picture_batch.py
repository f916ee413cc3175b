import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from serve_app.picture_batch import PictureBatcher
from shards.grid import Grid


class Encoder:
    """Doubles each picture; holds its first pass until released."""

    def __init__(self) -> None:
        self.passes: list[list[int]] = []
        self.release = threading.Event()

    def __call__(self, patches: Sequence[Any], grids: Sequence[Grid]) -> list[Any]:
        self.passes.append(list(patches))
        if len(self.passes) == 1:
            self.release.wait(10)
        if -1 in patches:
            raise ValueError("bad picture")
        return [2 * picture for picture in patches]


async def submit_all(batcher: PictureBatcher, pictures: list[tuple[int, Grid]]) -> list[Any]:
    tasks = [asyncio.create_task(batcher.submit(*picture)) for picture in pictures]
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_pictures_that_arrive_during_a_pass_share_the_next_one():
    encoder = Encoder()
    batcher = PictureBatcher(encoder, max_patches=100)
    grid = Grid(2, 5)
    first = asyncio.create_task(batcher.submit(1, grid))
    while not encoder.passes:
        await asyncio.sleep(0.001)
    rest = asyncio.create_task(submit_all(batcher, [(2, grid), (3, grid), (4, grid)]))
    await asyncio.sleep(0.01)
    encoder.release.set()
    assert await first == 2
    assert await rest == [4, 6, 8]
    assert encoder.passes == [[1], [2, 3, 4]]


async def test_a_pass_never_exceeds_its_patches_but_for_one_oversized_picture():
    encoder = Encoder()
    encoder.release.set()
    batcher = PictureBatcher(encoder, max_patches=30)
    small, large = Grid(2, 5), Grid(10, 10)
    results = await submit_all(batcher, [(n, small) for n in range(1, 5)] + [(9, large)])
    assert results == [2, 4, 6, 8, 18]
    sizes = {1: 10, 2: 10, 3: 10, 4: 10, 9: 100}
    assert all(len(p) == 1 or sum(sizes[n] for n in p) <= 30 for p in encoder.passes)
    assert max(len(p) for p in encoder.passes) == 3


async def test_a_failed_pass_fails_its_pictures_and_no_others():
    encoder = Encoder()
    encoder.release.set()
    batcher = PictureBatcher(encoder, max_patches=10)
    results = await submit_all(batcher, [(-1, Grid(2, 5)), (3, Grid(2, 5))])
    assert isinstance(results[0], ValueError)
    assert results[1] == 6


async def test_a_cancelled_picture_is_not_encoded():
    encoder = Encoder()
    batcher = PictureBatcher(encoder, max_patches=100)
    grid = Grid(1, 1)
    first = asyncio.create_task(batcher.submit(1, grid))
    while not encoder.passes:
        await asyncio.sleep(0.001)
    doomed = asyncio.create_task(batcher.submit(2, grid))
    kept = asyncio.create_task(batcher.submit(3, grid))
    await asyncio.sleep(0.01)
    doomed.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doomed
    encoder.release.set()
    assert (await first, await kept) == (2, 6)
    assert encoder.passes == [[1], [3]]


async def test_patches_are_pending_until_their_pass_has_ended():
    encoder = Encoder()
    batcher = PictureBatcher(encoder, max_patches=20)
    first = asyncio.create_task(batcher.submit(1, Grid(2, 5)))
    while not encoder.passes:
        await asyncio.sleep(0.001)
    rest = asyncio.create_task(submit_all(batcher, [(2, Grid(2, 5)), (3, Grid(3, 3))]))
    await asyncio.sleep(0.01)
    assert batcher.pending_patches == 29
    encoder.release.set()
    await asyncio.gather(first, rest)
    assert batcher.pending_patches == 0


async def test_patches_of_a_failed_pass_are_not_pending():
    encoder = Encoder()
    encoder.release.set()
    batcher = PictureBatcher(encoder, max_patches=100)
    await submit_all(batcher, [(-1, Grid(2, 5))])
    assert batcher.pending_patches == 0
