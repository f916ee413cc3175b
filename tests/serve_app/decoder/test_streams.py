import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serve_app.decoder.streams import Streams
from shards.errors import GroupError
from shards.request import Delta, FinishReason, Timing, TokenLogprob


def delta(request_id: str, token: int) -> Delta:
    return Delta(request_id, 0, (token,), prompt_tokens=1, completion_tokens=1)


async def test_deltas_that_wait_are_taken_as_one_and_in_order():
    streams = Streams()
    stream = streams.open("a")
    streams.deliver([delta("a", 1), delta("a", 2)])
    assert [d.token_ids for d in await stream.take()] == [(1, 2)]
    streams.deliver([delta("a", 3)])
    assert [d.token_ids for d in await stream.take()] == [(3,)]


async def test_a_joined_delta_says_what_its_parts_said():
    def part(choice: int, token: int, completion: int, **more: Any) -> Delta:
        entry = TokenLogprob(token, -0.5)
        return Delta("a", choice, (token,), 9, completion, logprobs=(entry,), **more)

    streams = Streams()
    stream = streams.open("a")
    ending = {"finish_reason": FinishReason.STOP, "stop": "end", "timing": Timing(1.0)}
    streams.deliver([part(0, 1, 1), part(1, 5, 1), part(0, 2, 2, **ending), part(1, 6, 2)])
    first, second = await stream.take()
    assert first == replace(
        part(0, 2, 2, **ending),
        token_ids=(1, 2),
        logprobs=(TokenLogprob(1, -0.5), TokenLogprob(2, -0.5)),
    )
    assert first.timing == Timing(1.0)
    assert (second.choice, second.token_ids, second.completion_tokens) == (1, (5, 6), 2)
    assert second.finish_reason is None


async def test_the_choice_that_was_heard_last_comes_last():
    streams = Streams()
    stream = streams.open("a")
    choices = (0, 1, 0)
    streams.deliver([replace(delta("a", 1), choice=choice) for choice in choices])
    assert [d.choice for d in await stream.take()] == [1, 0]


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
    assert [d.token_ids for d in await taking] == [(2, 3, 4)]


@pytest.mark.parametrize(("cores", "items_per_s"), [(2, 64), (8, 256), (96, 512)])
async def test_more_cores_pass_on_more_items(monkeypatch, cores, items_per_s):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    streams = Streams()
    for number in range(64):
        streams.open(f"{number}")
    assert streams.interval_s == 64 / items_per_s


async def test_the_more_streams_the_longer_each_waits_between_items():
    streams = Streams(items_per_s=10)
    streams.open("a")
    alone = streams.interval_s
    streams.open("b")
    assert streams.interval_s == 2 * alone == 0.2
