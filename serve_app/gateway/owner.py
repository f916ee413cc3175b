"""Whoever owns an accepted request, from its hold to its settlement.

    preparing ──► holding ──► generating ──► closing
    free, may     durable     the team pays  counts are final: stored for
    be dropped                from here on   repeats, settled, then told

It runs in a task that Ray Serve cannot cancel when the client hangs up (detached.py), as money must
not hang on that. Clients attend the transcript.

How it ends, and who pays. Complete, even if the client left after the last token: the team, all.
Left before: the team, what was computed until the abort. Failed by a fault of ours: nobody. What
cannot be known here (the engine's last word is lost) is left to the sweeper.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from contextvars import Context
from enum import Enum, auto

from serve_app.accounting.hold import Hold, Outcome, Settlement
from serve_app.accounting.office import Office
from serve_app.accounting.replays import Claim, Repeat, StoredAnswer
from serve_app.errors import GenerationFailed, Overloaded, api_error
from serve_app.gateway.chat import Asked, Chat
from serve_app.gateway.choice import Piece
from serve_app.gateway.detached import detached
from serve_app.gateway.generation import Generation
from serve_app.gateway.rate_headers import rate_headers
from serve_app.gateway.reckoning import Reckoning
from serve_app.gateway.scribe import Scribe
from serve_app.gateway.transcript import Head, Transcript
from serve_app.log import logger
from serve_app.messages import Prompt
from serve_app.preprocess.wire import PATCH_BYTES
from shards.request import Delta

# An abort takes a step of the engine; a group that has not ended a stream by then never will.
LAST_WORD_S = 2.0


class _Stage(Enum):
    PREPARING = auto()
    HOLDING = auto()
    GENERATING = auto()
    CLOSING = auto()


class Owner:
    """Runs one request to its end, whoever listens. Made inside the event loop.

    Attributes:
        replayed: the answer was made for an earlier request.
        task: ends once everything is settled.
    """

    def __init__(self, asked: Asked, chat: Chat, office: Office) -> None:
        self.transcript = Transcript(keep=asked.repeat is not None)
        self.replayed = False
        self.asked = asked
        self._chat = chat
        self._office = office
        self._log = logger(__name__).bind(
            request_id=asked.request_id,
            team=asked.principal.team_name,
            key=asked.principal.public_id,
        )
        self._created = int(time.time())
        self._stage = _Stage.PREPARING
        self._readers = 0
        self._patience: asyncio.TimerHandle | None = None
        self._left = False
        self._stopped = False
        self._reckoning: Reckoning | None = None
        self._farewell: asyncio.Task[None] | None = None
        self.task = detached(self._run())

    @property
    def attendable(self) -> bool:
        """Whether there is, or may yet be, an answer."""
        return not (self._left or self._stopped or self.transcript.failed)

    def join(self) -> None:
        """A client attends."""
        self._readers += 1
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def part(self) -> None:
        """A client leaves. After the last one a keyed request runs on for a while."""
        self._readers -= 1
        if self._readers or self.task.done():
            return
        if self.asked.repeat is None:
            self.leave()
        else:
            self._patience = asyncio.get_running_loop().call_later(
                self._chat.config.accounting.keyed_lifetime_s, self.leave, context=Context()
            )

    def leave(self) -> None:
        """Nobody listens any more: stop, and let the team pay what was computed until then."""
        if self._left or self._stopped:
            return
        self._left = True
        if self._stage is _Stage.PREPARING:
            self.task.cancel()
        elif self._stage is _Stage.GENERATING and self._reckoning is not None:
            self._farewell = detached(self._say_farewell(self._reckoning.hold))

    def stop(self) -> None:
        """The gateway shuts down: what is not complete fails."""
        if self._left or self._stopped:
            return
        self._stopped = True
        if self._stage in (_Stage.PREPARING, _Stage.GENERATING):
            self.task.cancel()

    async def _run(self) -> None:
        try:
            if self.asked.repeat is None:
                await self._answer(None)
            else:
                await self._answer_once(self.asked.repeat)
        except asyncio.CancelledError:
            self._log.info("request dropped before it began")
        except Exception as error:
            self._tell(error)
        finally:
            self.transcript.fail(Overloaded("the request was ended before it was answered"))

    async def _answer_once(self, repeat: Repeat) -> None:
        """Replay the answer if there is one, else make it for all repeats."""
        async with self._office.replays.claim(repeat, self.asked.request_id) as claim:
            stored = await claim.obtain()
            if stored is None:
                await self._answer(claim)
                return
        self.replayed = True
        self.transcript.open(Head(stored.media_type, stored.headers))
        self.transcript.write(stored.body)
        self.transcript.end()

    async def _answer(self, claim: Claim | None) -> None:
        prompt = await self._chat.prompt(self.asked)
        # Its patches lie in the object store until the answer is complete.
        with self._chat.patch_room.taken(PATCH_BYTES * prompt.patch_count):
            await self._answer_to(prompt, claim)

    async def _answer_to(self, prompt: Prompt, claim: Claim | None) -> None:
        asked, chat = self.asked, self._chat
        request = chat.generation_request(asked, prompt)
        sampling = request.sampling
        prices = self._office.prices.current(chat.config.model.name)
        generation = Generation(chat.reading_rules(asked, prompt, sampling), sampling.n)
        scribe = chat.scribe(asked, prompt, prices, self._created)
        # Never cancelled while it is held: who leaves meanwhile is seen once the hold is there.
        self._stage = _Stage.HOLDING
        hold = await self._office.ledger.hold(chat.hold_request(asked, prompt, sampling, prices))
        self._reckoning = reckoning = Reckoning(hold, self._office.ledger, claim, self._log)
        if self._left or self._stopped:
            await reckoning.done(Settlement(Outcome.REFUSED))
            return
        self._stage = _Stage.GENERATING
        async with aclosing(chat.tiers.generate(request, prompt)) as deltas:
            try:
                last = await self._generate(deltas, generation, scribe, hold)
                tail = b"" if generation.aborted else scribe.finish(last, generation.usage)
            except (Exception, asyncio.CancelledError) as error:
                await self._fail(reckoning, generation, scribe, error)
                return
            if generation.aborted:
                await reckoning.done(Settlement(Outcome.DISCONNECTED, generation.charges))
            else:
                await self._complete(reckoning, generation, _head(scribe, generation, hold), tail)
            await self._exhaust(deltas)

    async def _generate(
        self,
        deltas: AsyncGenerator[tuple[Delta, ...], None],
        generation: Generation,
        scribe: Scribe,
        hold: Hold,
    ) -> list[Piece]:
        """Show what comes, but for the last pieces, which are told with what they cost.

        Raises:
            ApiError: refused, failed or, though somebody listens, aborted.
        """
        async for some in deltas:
            pieces = generation.read(some)
            if not generation.running:
                self._stage = _Stage.CLOSING
                if generation.aborted and not self._left:
                    raise GenerationFailed("the answer was aborted before it was complete")
                return pieces
            if scribe.streams and not self.transcript.opened:
                self.transcript.open(_head(scribe, generation, hold))
            self.transcript.write(scribe.step(pieces))
        raise GenerationFailed("the answer ended before it was complete")

    async def _exhaust(self, deltas: AsyncGenerator[tuple[Delta, ...], None]) -> None:
        """Let the stream end by itself: to close it before would cancel what is done."""
        try:
            async for _ in deltas:
                pass
        except Exception as error:
            self._log.warning("after the last token", error=error)

    async def _complete(
        self, reckoning: Reckoning, generation: Generation, head: Head, tail: bytes
    ) -> None:
        answer = StoredAnswer(head.media_type, head.headers, self.transcript.kept + tail)
        settling = await reckoning.begun(Settlement(Outcome.COMPLETED, generation.charges), answer)
        if not self.transcript.opened:
            self.transcript.open(head)
        self.transcript.write(tail)
        self.transcript.end()
        await settling

    async def _fail(
        self, reckoning: Reckoning, generation: Generation, scribe: Scribe, error: BaseException
    ) -> None:
        self._stage = _Stage.CLOSING
        if self._left:
            reckoning.leave_to_sweeper(error)
            return
        if not isinstance(error, Exception):
            error = Overloaded("the gateway is shutting down")
        fault = api_error(error)
        began = self._stopped or bool(generation.charges)
        refused = not began and (fault.status < 500 or isinstance(fault, Overloaded))
        settling = await reckoning.begun(Settlement(Outcome.REFUSED if refused else Outcome.FAILED))
        if self.transcript.opened:
            self.transcript.write(scribe.failure(fault, generation.running))
        self._tell(error)
        await settling

    async def _say_farewell(self, hold: Hold) -> None:
        """End the request in the engine; its stream then ends by itself, with the last counts."""
        faults = await asyncio.gather(
            self._office.ledger.note_disconnect(hold),
            self._chat.tiers.abort([self.asked.request_id]),
            return_exceptions=True,
        )
        for fault in faults:
            if isinstance(fault, Exception):
                self._log.warning("a request that was left is not ended in order", error=fault)
        await asyncio.wait({self.task}, timeout=LAST_WORD_S)
        if self._stage is _Stage.GENERATING:
            self.task.cancel()

    def _tell(self, error: Exception) -> None:
        if api_error(error).status >= 500:
            self._log.error("request failed", error=error)
        self.transcript.fail(error)


def _head(scribe: Scribe, generation: Generation, hold: Hold) -> Head:
    return scribe.head(generation.usage, rate_headers(hold.requests, hold.tokens))
