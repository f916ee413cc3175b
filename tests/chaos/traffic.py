"""Callers: some leave early, some get errors; each notes what it saw."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

import aiohttp

from tests.cluster.system import picture

RETRY_S = 0.5
# Refused because something is down, or cut off before the first byte: asked again.
TRIES = 120
TIMEOUT = aiohttp.ClientTimeout(total=120)


class Ending(StrEnum):
    ANSWERED = auto()  # whole, with its usage
    LEFT = auto()  # by the caller, early
    FAILED = auto()  # an error chunk or a 5xx
    CUT = auto()  # the connection was lost: who asks cannot know what became of it
    REFUSED = auto()  # a 4xx


@dataclass(frozen=True)
class Seen:
    """One HTTP exchange; ``usage`` counts tokens as answers tell them (see ``told``)."""

    ending: Ending
    request_id: str | None = None
    status: int | None = None
    usage: Counter[str] | None = None


@dataclass(frozen=True)
class Patience:
    """When a caller leaves: after so long, or having seen so much of its answer."""

    seconds: float | None = None
    events: int | None = None


class _LeftError(Exception):
    pass


def told(kinds: Mapping[str, int]) -> Counter[str]:
    """Tokens by the ledger's kinds as an answer tells them: all text, all of pictures, and how many
    of both were cached."""
    text, image = kinds.get("cached_text", 0), kinds.get("cached_image", 0)
    return +Counter(
        text=kinds.get("text", 0) + text,
        image=kinds.get("image", 0) + image,
        cached=text + image,
        output=kinds.get("output", 0),
    )


@dataclass(frozen=True)
class Caller:
    """Asks one question of the API at ``url``; ``dice`` decide which, and whether it waits for
    the answer."""

    url: str
    model: str
    key: str
    dice: random.Random

    async def ask(self, session: aiohttp.ClientSession) -> list[Seen]:
        """One request with its retries; the last says how it ended."""
        body, patience = self._body(), self._patience()
        seen: list[Seen] = []
        while len(seen) < TRIES:
            seen.append(await self._exchange(session, body, patience))
            if seen[-1].ending is not Ending.CUT and seen[-1].status != 503:
                break
            await asyncio.sleep(RETRY_S)
        return seen

    def _body(self) -> dict[str, Any]:
        words = " ".join(["word"] * self.dice.randint(1, 40))
        content: list[dict[str, Any]] = [{"type": "text", "text": words}]
        if self.dice.random() < 0.1:
            content.append(picture(32, 32, self.dice.randint(1, 250)))
        return {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.dice.randint(4, 40),
            "n": self.dice.choice((1, 1, 1, 2)),
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def _patience(self) -> Patience:
        if self.dice.random() < 0.75:
            return Patience()
        if self.dice.random() < 0.5:
            return Patience(seconds=self.dice.uniform(0, 1))
        return Patience(events=self.dice.randint(1, 6))

    async def _exchange(
        self, session: aiohttp.ClientSession, body: dict[str, Any], patience: Patience
    ) -> Seen:
        notes = _Notes(patience.events)
        try:
            async with asyncio.timeout(patience.seconds):
                await self._stream(session, body, notes)
        except (TimeoutError, _LeftError):
            return notes.seen(Ending.LEFT)
        except aiohttp.ClientError:
            return notes.seen(Ending.CUT)
        if notes.usage is not None:
            return notes.seen(Ending.ANSWERED)
        if notes.status is not None and 400 <= notes.status < 500:
            return notes.seen(Ending.REFUSED)
        return notes.seen(Ending.FAILED if notes.error or notes.status != 200 else Ending.CUT)

    async def _stream(
        self, session: aiohttp.ClientSession, body: dict[str, Any], notes: _Notes
    ) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        url = f"{self.url}/chat/completions"
        async with session.post(url, json=body, headers=headers) as response:
            notes.status = response.status
            notes.request_id = response.headers.get("x-request-id")
            if response.status == 200:
                async for event in _events(response):
                    notes.read(event)


class _Notes:
    def __init__(self, most_events: int | None) -> None:
        self._most_events = most_events
        self._events = 0
        self.request_id: str | None = None
        self.status: int | None = None
        self.usage: Counter[str] | None = None
        self.error = False

    def read(self, event: dict[str, Any]) -> None:
        self.error = self.error or "error" in event
        if usage := event.get("usage"):
            details = usage["prompt_tokens_details"]
            kinds = {
                "text": details["text_tokens"],
                "image": details["image_tokens"],
                "cached": details["cached_tokens"],
                "output": usage["completion_tokens"],
            }
            self.usage = +Counter(kinds)
        self._events += 1
        if self._events == self._most_events and self.usage is None:
            raise _LeftError

    def seen(self, ending: Ending) -> Seen:
        return Seen(ending, self.request_id, self.status, self.usage)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    async for line in response.content:
        if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
            yield json.loads(line.removeprefix(b"data: "))


async def rush(
    callers: Sequence[Caller], concurrency: int, ended: Callable[[], object]
) -> list[Seen]:
    """Each asks once, ``concurrency`` at a time; ``ended`` is called after each."""
    seen: list[Seen] = []
    waiting = iter(callers)

    async def ask_on(session: aiohttp.ClientSession) -> None:
        for caller in waiting:
            seen.extend(await caller.ask(session))
            ended()

    # A connection of their own, as callers on different machines have.
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
        await asyncio.gather(*(ask_on(session) for _ in range(concurrency)))
    return seen
