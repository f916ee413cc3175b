"""A flood of pictures is told to come back before memory grows, and text goes through."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from starlette.types import Message, Receive, Scope, Send

from serve_app.errors import Overloaded
from serve_app.gateway.body_room import SMALL_BYTES, BodyRoom
from tests.serve_app.gateway.client_cases import Endpoint, image_part, text_part
from tests.serve_app.gateway.conftest import Gateway
from tests.serve_app.preprocess.pictures import encoded, noise

MIB = 2**20


class App:
    """Reads a body, and holds it until it is told to end."""

    def __init__(self) -> None:
        self.read = 0
        self.end = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            self.read += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await self.end.wait()


def request(*chunks: int) -> Receive:
    waiting = list(chunks)

    async def receive() -> Message:
        body = bytes(waiting.pop(0))
        return {"type": "http.request", "body": body, "more_body": bool(waiting)}

    return receive


async def sent(room: BodyRoom, *chunks: int) -> None:
    async def send(message: Message) -> None:
        raise AssertionError("nothing is answered here")

    await room({"type": "http"}, request(*chunks), send)


async def test_who_sends_more_than_there_is_room_for_is_refused_at_the_first_byte_over():
    app = App()
    room = BodyRoom(app, 10 * SMALL_BYTES)
    first = asyncio.create_task(sent(room, *[SMALL_BYTES] * 6))
    await asyncio.sleep(0)
    assert app.read == 6 * SMALL_BYTES
    with pytest.raises(Overloaded) as caught:
        await sent(room, *[SMALL_BYTES] * 5)
    assert app.read == (6 + 4) * SMALL_BYTES
    assert (caught.value.status, caught.value.retry_after_s) == (503, 2)
    app.end.set()
    await first
    await sent(room, *[SMALL_BYTES] * 10)


async def test_small_bodies_find_room_and_take_none():
    app = App()
    room = BodyRoom(app, 2 * SMALL_BYTES)
    full = asyncio.create_task(sent(room, 2 * SMALL_BYTES))
    await asyncio.sleep(0)
    small = [asyncio.create_task(sent(room, SMALL_BYTES)) for _ in range(9)]
    await asyncio.sleep(0)
    assert app.read == 11 * SMALL_BYTES
    app.end.set()
    await asyncio.gather(full, *small)


async def test_one_that_is_alone_may_be_larger():
    app = App()
    app.end.set()
    await sent(BodyRoom(app, SMALL_BYTES), *[SMALL_BYTES] * 9)
    assert app.read == 9 * SMALL_BYTES


async def test_what_was_refused_or_failed_holds_nothing():
    class Failing(App):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            raise ValueError("failed")

    room = BodyRoom(Failing(), 2 * SMALL_BYTES)
    for _ in range(9):
        with pytest.raises(ValueError, match="failed"):
            await sent(room, 2 * SMALL_BYTES)


def question(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [*parts, text_part("What is it?")]}]


def big_picture(megabytes: int) -> Any:
    """It is decoded quickly: what is behind its end is not looked at."""
    data = encoded(noise(40, 30), "PNG") + bytes(megabytes * MIB)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    return {"type": "image_url", "image_url": {"url": url}}


class Peak:
    """Of this process' memory and its workers', beyond what they had."""

    def __init__(self) -> None:
        self._processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        self._before = self._now()
        self._most = self._before
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def grown(self) -> int:
        return self._most - self._before

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self._most = max(self._most, self._now())

    def _now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes if process.is_running())


def test_a_flood_of_pictures_is_told_to_come_back_before_memory_grows(serve, record_property):
    """Of 60 bodies of 8 MiB, sent by 20 clients, there is room for three at once: held, 20 and what
    they are made into would take a gigabyte."""
    flooded: Gateway = serve(
        gateway={"max_held_body_bytes": 32 * MIB},
        preprocess={"workers": 1, "max_bytes_in_hand": 16 * MIB, "max_pictures_in_hand": 4},
    )
    endpoint = flooded.endpoint
    flooded.tiers.step_delay_s = 0.05
    asked = question(big_picture(6))
    assert endpoint.chat("/v1", messages=asked, max_tokens=1).status_code == 200
    outcomes: Counter[str] = Counter()

    # One for all clients, which are in this process: what they hold is not the gateway's.
    body = {"model": endpoint.model, "messages": asked, "max_tokens": 8}
    encoded_body = json.dumps(body).encode()

    def ask(_: int) -> None:
        answer = endpoint.post("/v1/chat/completions", encoded_body)
        if answer.status_code != 200:
            assert answer.status_code in (429, 503), answer.text
            assert int(answer.headers["retry-after"]) >= 1
        outcomes[str(answer.status_code)] += 1

    with Peak() as peak, ThreadPoolExecutor(20) as clients:
        for _ in clients.map(ask, range(60)):
            pass
        text = endpoint.chat("/v1", messages=question(), max_tokens=1)
    assert text.status_code == 200
    assert outcomes["200"] >= 1
    assert outcomes["503"] >= 1
    assert peak.grown < 320 * MIB
    told = ", ".join(f"{count} x {status}" for status, count in sorted(outcomes.items()))
    record_property(
        "told", f"60 bodies of 8 MiB at once: {told}; memory grew by {peak.grown // MIB} MiB"
    )


def test_patches_of_unanswered_requests_are_bounded(serve):
    """A full picture becomes 12 MiB of patches, which lie in the object store until it is
    answered."""
    bounded: Gateway = serve(gateway={"max_held_patch_bytes": MIB})
    tiers, endpoint = bounded.tiers, bounded.endpoint
    tiers.hangs = True
    with ThreadPoolExecutor(1) as client:
        first = client.submit(_hang, endpoint)
        deadline = time.monotonic() + 10
        while not tiers.requests:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        refused = endpoint.chat("/v1", messages=question(image_part(400, 300)), max_tokens=4)
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "too many pictures" in refused.json()["error"]["message"]
        request_id = tiers.requests[0].request_id
        asyncio.run(tiers.abort([request_id]))
        first.result()
    tiers.hangs = False
    again = endpoint.chat("/v1", messages=question(image_part(400, 300)), max_tokens=4)
    assert again.status_code == 200


def _hang(endpoint: Endpoint) -> None:
    endpoint.chat("/v1", messages=question(image_part(400, 300)), max_tokens=4)
