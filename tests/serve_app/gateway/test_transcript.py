"""The buffer between an owner and those who attend."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.errors import Overloaded
from serve_app.gateway.transcript import Head, Transcript

HEAD = Head("text/plain")


async def collected(transcript: Transcript) -> bytes:
    return b"".join([data async for data in transcript.read(10) if data])


async def test_everybody_reads_from_the_first_byte_whenever_they_come() -> None:
    transcript = Transcript(keep=True)
    early = [asyncio.create_task(collected(transcript)) for _ in range(3)]
    for data in (b"one ", b"two ", b"", b"three"):
        transcript.write(data)
        await asyncio.sleep(0)
    late = asyncio.create_task(collected(transcript))
    await asyncio.sleep(0)
    transcript.end()
    assert await asyncio.gather(*early, late) == [b"one two three"] * 4
    assert await collected(transcript) == transcript.kept == b"one two three"


async def test_what_is_not_kept_is_forgotten_once_read() -> None:
    transcript = Transcript(keep=False)
    transcript.write(b"one")
    transcript.write(b"two")
    reading = transcript.read(10)
    assert await anext(reading) == b"onetwo"
    assert transcript.kept == b""
    transcript.end()
    with pytest.raises(StopAsyncIteration):
        await anext(reading)


async def test_silence_is_told_and_loses_nothing() -> None:
    transcript = Transcript(keep=False)
    reading = transcript.read(0.01)
    assert await anext(reading) is None
    assert await anext(reading) is None
    transcript.write(b"at last")
    assert await anext(reading) == b"at last"


async def test_whoever_waits_for_a_head_gets_it_or_the_error() -> None:
    opened, failed = Transcript(keep=False), Transcript(keep=False)
    heads = [asyncio.create_task(each.head()) for each in (opened, failed)]
    await asyncio.sleep(0)
    opened.open(HEAD)
    failed.fail(Overloaded("busy"))
    assert await heads[0] == HEAD
    with pytest.raises(Overloaded):
        await heads[1]


async def test_nothing_fails_after_its_end() -> None:
    transcript = Transcript(keep=True)
    transcript.open(HEAD)
    transcript.end()
    transcript.fail(Overloaded("busy"))
    assert not transcript.failed
    assert await transcript.head() == HEAD
