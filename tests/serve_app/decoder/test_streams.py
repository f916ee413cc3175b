import asyncio
from dataclasses import replace

import pytest

from serve_app.decoder.streams import Streams
from shards.errors import GroupError
from shards.request import Delta, FinishReason


def delta(request_id: str, token: int) -> Delta:
    return Delta(request_id, 0, (token,), prompt_tokens=1, completion_tokens=1)


async def test_deltas_that_wait_are_taken_together_and_in_order():
    streams = Streams()
    stream = streams.open("a")
    streams.deliver([delta("a", 1), delta("a", 2)])
    assert [d.token_ids for d in await stream.take()] == [(1,), (2,)]
    streams.deliver([delta("a", 3)])
    assert [d.token_ids for d in await stream.take()] == [(3,)]


async def test_take_waits_for_the_first_delta():
    streams = Streams()
    stream = streams.open("a")
    taking = asyncio.create_task(stream.take())
    await asyncio.sleep(0)
    assert not taking.done()
    streams.deliver([delta("a", 1)])
    assert (await taking)[0].token_ids == (1,)


async def test_deltas_reach_only_their_own_stream():
    streams = Streams()
    first, second = streams.open("a"), streams.open("b")
    streams.deliver([delta("b", 2), delta("a", 1), delta("gone", 9)])
    assert [d.token_ids for d in await first.take()] == [(1,)]
    assert [d.token_ids for d in await second.take()] == [(2,)]


async def test_a_lost_group_ends_every_stream_after_what_was_delivered():
    streams = Streams()
    stream = streams.open("a")
    streams.deliver([delta("a", 1)])
    streams.fail(GroupError("rank 1 died"))
    assert len(await stream.take()) == 1
    for _ in range(2):
        with pytest.raises(GroupError, match="rank 1 died"):
            await stream.take()


async def test_a_request_id_cannot_run_twice():
    streams = Streams()
    streams.open("a")
    with pytest.raises(ValueError, match="already running"):
        streams.open("a")
    streams.close("a")
    streams.open("a")


async def test_after_the_first_tokens_those_that_come_soon_travel_together():
    streams = Streams(items_per_s=0.01)
    stream = streams.open("a")
    streams.deliver([delta("a", 1)])
    assert len(await stream.take()) == 1
    taking = asyncio.create_task(stream.take())
    for token in (2, 3):
        streams.deliver([delta("a", token)])
        await asyncio.sleep(0.01)
    assert not taking.done()
    streams.deliver([replace(delta("a", 4), finish_reason=FinishReason.STOP)])
    assert [d.token_ids for d in await taking] == [(2,), (3,), (4,)]


async def test_the_more_streams_the_longer_each_waits_between_items():
    streams = Streams(items_per_s=10)
    streams.open("a")
    alone = streams.interval_s
    streams.open("b")
    assert streams.interval_s == 2 * alone == 0.2
