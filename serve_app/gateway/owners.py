"""Every request that this gateway has accepted and not yet settled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve_app.accounting.office import Office
from serve_app.accounting.replays import Repeat
from serve_app.errors import Overloaded, ReusedKey
from serve_app.gateway.chat import Asked, Chat
from serve_app.gateway.owner import Owner
from serve_app.gateway.transcript import Transcript

# For failing what was stopped and settling it.
_STOP_S = 3.0


@dataclass(frozen=True, slots=True)
class Attendance:
    """A client's place at an answer. ``first``: it is the one that the answer is made for."""

    owner: Owner
    first: bool

    @property
    def transcript(self) -> Transcript:
        return self.owner.transcript

    @property
    def replayed(self) -> bool:
        return self.owner.replayed or not self.first


class Owners:
    def __init__(self, chat: Chat, office: Office) -> None:
        self._chat = chat
        self._office = office
        self._running: set[Owner] = set()
        self._keyed: dict[tuple[int, bytes], Owner] = {}
        self._draining = False

    @contextmanager
    def attend(self, asked: Asked) -> Iterator[Attendance]:
        """Have the request run, or join the run of an equal one with the same Idempotency-Key.

        When its last client leaves, the request is ended: at once, or, with a key, when none has
        come back for ``keyed_lifetime_s``.

        Raises:
            ReusedKey: the key runs with another body.
            Overloaded: the gateway is shutting down.
        """
        owner = None if asked.repeat is None else self._running_equal(asked.repeat)
        first = owner is None
        if owner is None:
            owner = self._begin(asked)
        owner.join()
        try:
            yield Attendance(owner, first)
        finally:
            owner.part()

    async def drain(self, patience_s: float) -> None:
        """Take nothing more in; what is not complete after ``patience_s`` fails. Returns once all
        is settled, or will not be before the process ends."""
        self._draining = True
        await self._wait(patience_s)
        for owner in self._running:
            owner.stop()
        await self._wait(_STOP_S)

    def _running_equal(self, repeat: Repeat) -> Owner | None:
        owner = self._keyed.get((repeat.team_id, repeat.key))
        # One that failed is about to free the key: whoever comes now waits for that.
        if owner is None or not owner.attendable:
            return None
        if owner.asked.repeat != repeat:
            raise ReusedKey(
                "this Idempotency-Key was sent with another body before", param="Idempotency-Key"
            )
        return owner

    def _begin(self, asked: Asked) -> Owner:
        if self._draining:
            raise Overloaded("the gateway is shutting down; try again shortly")
        owner = Owner(asked, self._chat, self._office)
        self._running.add(owner)
        if asked.repeat is not None:
            self._keyed[asked.repeat.team_id, asked.repeat.key] = owner
        owner.task.add_done_callback(lambda _: self._forget(owner))
        return owner

    def _forget(self, owner: Owner) -> None:
        self._running.discard(owner)
        repeat = owner.asked.repeat
        if repeat is not None and self._keyed.get((repeat.team_id, repeat.key)) is owner:
            del self._keyed[repeat.team_id, repeat.key]

    async def _wait(self, patience_s: float) -> None:
        if self._running:
            await asyncio.wait({owner.task for owner in self._running}, timeout=patience_s)
