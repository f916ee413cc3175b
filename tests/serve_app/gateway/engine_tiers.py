"""The tiers in one process: real preparing, real engine, simulated model. Faults on demand."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from serve_app.errors import GenerationFailed
from serve_app.gateway.tiers import Readiness
from serve_app.messages import JournalPage, Patches, PrepareRequest, Prompt, Pulse
from serve_app.preparing import Preprocess
from serve_app.preprocess.fetch import Fetcher
from serve_app.preprocess.network import Network
from serve_app.telemetry import FetchMetrics
from shards.engine import Engine
from shards.request import Delta, GenerationRequest, never_begun
from shards.simulated import SimulatedRunner, hashed
from shards.step import SampleSpec
from shards.tally import Tally
from shards.tokenizer import Tokenizer
from tests.serve_app.preprocess.shared_workers import preparer
from tests.shards.spelling import spell

T = TypeVar("T")
MAX_CONTEXT_TOKENS = 2048
_BLOCK_SIZE = 16
_NUM_BLOCKS = 1024


class EngineTiers:
    """Keeps the ``Tiers`` promise over an engine that steps in the server's event loop.

    Attributes to set from a test:
        reply: token ids that every choice says, then end of sequence; empty for made-up ones.
        prepare_error, generate_error: raised; the latter after ``items`` items were delivered.
        hangs: after ``items`` items nothing more comes, but for what ``abort`` brings.
        step_delay_s: between steps.
        cached_text, cached_image: of every prompt, tokens that a prefix cache is said to hold.
        abort_error, journal_error: raised; an abort that fails has no effect.
        max_drafts: tokens guessed ahead, by groups that start from now on (``start_group``).

    Attributes to look at: ``requests`` as they came, ``closed`` ids of generators that ended,
    ``aborted`` ids as they were asked for, ``tallies`` as the journals of all groups have them.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        network: Network | None = None,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        """``network`` and ``trust``: of a test's own internet, for pictures that are fetched."""
        vocabulary = tokenizer.vocabulary
        self.reply: tuple[int, ...] = ()
        self.prepare_error: Exception | None = None
        self.generate_error: Exception | None = None
        self.hangs = False
        self.items = 0
        self.step_delay_s = 0.0
        self.cached_text = self.cached_image = 0
        self.readiness_answer = Readiness(True)
        self.requests: list[GenerationRequest] = []
        self.prepared: list[PrepareRequest] = []
        self.closed: list[str] = []
        self.abort_error: Exception | None = None
        self.journal_error: Exception | None = None
        self.max_drafts = 0
        self.aborted: list[str] = []
        self._vocabulary = vocabulary
        self._preparer = preparer(tokenizer, preprocess)
        self._fetcher = Fetcher(preprocess, FetchMetrics(), network, trust)
        self._made_up = hashed(len(vocabulary))
        self._eos_id = vocabulary.eos_id
        self._streams: dict[str, _Stream] = {}
        self._stepping: asyncio.Task[None] | None = None
        self._home: asyncio.AbstractEventLoop | None = None
        # group -> its tallies in the order of their coming; a bookmark counts them
        self._journals: dict[str, list[Tally]] = {}
        self.start_group()

    @property
    def tallies(self) -> dict[tuple[str, int, int], Tally]:
        """The latest by request, attempt and choice."""
        return {
            (tally.request_id, tally.attempt, tally.choice): tally
            for journal in self._journals.values()
            for tally in journal
        }

    def say(self, text: str, *control_ids: int) -> None:
        """Reply ``control_ids`` and then ``text``."""
        self.reply = (*control_ids, *spell(text, self._vocabulary))

    async def prepare(self, request: PrepareRequest) -> Prompt:
        self.prepared.append(request)
        if self.prepare_error is not None:
            raise self.prepare_error
        async with self._fetcher.filled(request) as whole:
            ready = await self._preparer.prepare(whole)
        patches = tuple(Patches(cut.picture, cut.patches) for cut in ready.pictures)
        return Prompt(ready.token_ids, ready.text_tokens, ready.image_tokens, patches, ready.shown)

    async def generate(
        self, request: GenerationRequest, prompt: Prompt
    ) -> AsyncGenerator[tuple[Delta, ...], None]:
        self._home = asyncio.get_running_loop()
        self.requests.append(request)
        if request.request_id in self.aborted:
            yield never_begun(request)
            return
        stream = self._streams[request.request_id] = _Stream()
        engine = self.engine
        try:
            self._fail_after(0)
            engine.add(request, [patches.ref for patches in prompt.patches])
            self._step_on()
            running, delivered = request.sampling.n, 0
            while running:
                if self.hangs and delivered == self.items:
                    await stream.ended.wait()
                deltas = await stream.take()
                running -= sum(delta.finish_reason is not None for delta in deltas)
                yield deltas
                delivered += 1
                self._fail_after(delivered)
        finally:
            del self._streams[request.request_id]
            engine.abort(request.request_id)
            # An abort over a network takes a while; closing must wait for it.
            await asyncio.sleep(0.01)
            self.closed.append(request.request_id)

    async def abort(self, request_ids: Sequence[str]) -> None:
        if self.abort_error is not None:
            raise self.abort_error
        await self._at_home(lambda: self._abort(request_ids))

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        if self.journal_error is not None:
            raise self.journal_error
        return await self._at_home(lambda: self._read_journals(bookmarks))

    async def computed(self) -> Mapping[str, int]:
        return {self.group: self.engine.stats().tallied}

    async def groups(self) -> Sequence[Pulse | None]:
        return [Pulse(self.group, 0.0, 30.0, self.engine.stats(), ())]

    async def lose_group(self) -> None:
        """The group dies: its streams break off, another takes its place, its journal stays."""
        await self._at_home(self._lose_group)

    async def readiness(self) -> Readiness:
        return self.readiness_answer

    async def _at_home(self, work: Callable[[], T]) -> T:
        """Do it in the loop that the engine steps in, whichever loop this is called in."""
        home = self._home
        if home is None or home is asyncio.get_running_loop() or not home.is_running():
            return work()
        done: Future[T] = Future()
        home.call_soon_threadsafe(lambda: done.set_result(work()))
        return await asyncio.wrap_future(done)

    def _abort(self, request_ids: Sequence[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            self._emit(self.engine.abort(request_id))
            if request_id in self._streams:
                self._streams[request_id].ended.set()

    def _read_journals(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        pages = []
        for group, journal in self._journals.items():
            unread = journal[bookmarks.get(group, 0) :]
            latest = {(tally.request_id, tally.attempt, tally.choice): tally for tally in unread}
            if latest:
                pages.append(JournalPage(group, len(journal), tuple(latest.values())))
        return tuple(pages)

    def _lose_group(self) -> None:
        for stream in self._streams.values():
            stream.fail(GenerationFailed("the model's group was lost while answering"))
        self.start_group()

    def _fail_after(self, delivered: int) -> None:
        if self.generate_error is not None and delivered == self.items:
            raise self.generate_error

    def _next_token(self, tokens: Sequence[int], sample: SampleSpec) -> int:
        if not self.reply:
            return self._made_up(tokens, sample)
        return self.reply[sample.index] if sample.index < len(self.reply) else self._eos_id

    def start_group(self) -> None:
        runner = SimulatedRunner(
            self._next_token,
            num_blocks=_NUM_BLOCKS,
            block_size=_BLOCK_SIZE,
            image_token_id=self._vocabulary.image_id,
        )
        self.engine = Engine(
            runner,
            vocabulary=self._vocabulary,
            num_blocks=_NUM_BLOCKS,
            block_size=_BLOCK_SIZE,
            max_context_tokens=MAX_CONTEXT_TOKENS,
            max_batch_sequences=16,
            max_step_tokens=4096,
            max_waiting=64,
            max_drafts=self.max_drafts,
        )
        self.group = f"group-{len(self._journals) + 1}"
        self._journals[self.group] = []

    def _step_on(self) -> None:
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step())

    async def _step(self) -> None:
        while self.engine.has_work:
            self._emit(self.engine.step())
            await asyncio.sleep(self.step_delay_s)

    def _emit(self, deltas: Sequence[Delta]) -> None:
        """Journal first, then deliver."""
        self._journals[self.group] += map(self._found, self.engine.tallies())
        by_request: dict[str, list[Delta]] = {}
        for delta in map(self._told_of_cache, deltas):
            by_request.setdefault(delta.request_id, []).append(delta)
        for request_id, own in by_request.items():
            if request_id in self._streams:
                self._streams[request_id].put(tuple(own))

    def _found(self, tally: Tally) -> Tally:
        text, image = min(self.cached_text, tally.text), min(self.cached_image, tally.image)
        return replace(
            tally,
            text=tally.text - text,
            image=tally.image - image,
            cached_text=tally.cached_text + text,
            cached_image=tally.cached_image + image,
        )

    def _told_of_cache(self, delta: Delta) -> Delta:
        text = min(self.cached_text, delta.prompt_tokens - delta.image_tokens)
        image = min(self.cached_image, delta.image_tokens)
        return replace(
            delta,
            cached_tokens=delta.cached_tokens + text + image,
            cached_image_tokens=delta.cached_image_tokens + image,
        )


class _Stream:
    """One request's deltas, an item a step. ``ended`` when nothing but what waits is to come."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self._items: asyncio.Queue[tuple[Delta, ...] | Exception] = asyncio.Queue()

    def put(self, deltas: tuple[Delta, ...]) -> None:
        self._items.put_nowait(deltas)

    def fail(self, error: Exception) -> None:
        self._items.put_nowait(error)
        self.ended.set()

    async def take(self) -> tuple[Delta, ...]:
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item


def mistral_common_data(name: str) -> Path:
    import mistral_common

    return Path(mistral_common.__file__).parent / "data" / name
