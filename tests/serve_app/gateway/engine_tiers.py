"""The tiers in one process: real preparing, real engine, simulated model. Faults on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from serve_app.config import Preprocess
from serve_app.gateway.tiers import Readiness
from serve_app.messages import Patches, PrepareRequest, Prompt
from serve_app.preprocess.prepare import Preparer
from shards.detokenizer import Vocabulary
from shards.engine import Engine
from shards.request import Delta, GenerationRequest
from shards.simulated import SimulatedRunner, hashed
from shards.step import SampleSpec
from shards.tokenizer import Tokenizer

MAX_CONTEXT_TOKENS = 2048
_BLOCK_SIZE = 16
_NUM_BLOCKS = 1024


class EngineTiers:
    """Keeps the ``Tiers`` promise over an engine that steps in the server's event loop.

    Attributes to set from a test:
        reply: token ids that every choice says, then end of sequence; empty for made-up ones.
        prepare_error, generate_error: raised; the latter after ``items`` items were delivered.
        hangs: nothing more comes after ``items`` items.
        step_delay_s: between steps.

    Attributes to look at: ``requests`` as they came, ``closed`` ids of generators that ended.
    """

    def __init__(self, tokenizer: Tokenizer, preprocess: Preprocess) -> None:
        vocabulary = tokenizer.vocabulary
        self.reply: tuple[int, ...] = ()
        self.prepare_error: Exception | None = None
        self.generate_error: Exception | None = None
        self.hangs = False
        self.items = 0
        self.step_delay_s = 0.0
        self.readiness_answer = Readiness(True)
        self.requests: list[GenerationRequest] = []
        self.prepared: list[PrepareRequest] = []
        self.closed: list[str] = []
        self._vocabulary = vocabulary
        self._preparer = Preparer(tokenizer, preprocess)
        self._made_up = hashed(len(vocabulary))
        self._eos_id = vocabulary.eos_id
        runner = SimulatedRunner(
            self._next_token,
            num_blocks=_NUM_BLOCKS,
            block_size=_BLOCK_SIZE,
            image_token_id=vocabulary.image_id,
        )
        self.engine = Engine(
            runner,
            vocabulary=vocabulary,
            num_blocks=_NUM_BLOCKS,
            block_size=_BLOCK_SIZE,
            max_context_tokens=MAX_CONTEXT_TOKENS,
            max_batch_sequences=16,
            max_step_tokens=4096,
            max_waiting=64,
        )
        self._queues: dict[str, asyncio.Queue[tuple[Delta, ...]]] = {}
        self._stepping: asyncio.Task[None] | None = None

    def say(self, text: str, *control_ids: int) -> None:
        """Reply ``control_ids`` and then ``text``."""
        self.reply = (*control_ids, *spell(text, self._vocabulary))

    async def prepare(self, request: PrepareRequest) -> Prompt:
        self.prepared.append(request)
        if self.prepare_error is not None:
            raise self.prepare_error
        ready = self._preparer.prepare(request)
        patches = tuple(Patches(picture, array) for picture, array in ready.pictures)
        return Prompt(ready.token_ids, ready.text_tokens, ready.image_tokens, patches)

    async def generate(
        self, request: GenerationRequest, prompt: Prompt
    ) -> AsyncGenerator[tuple[Delta, ...], None]:
        self.requests.append(request)
        queue = self._queues[request.request_id] = asyncio.Queue()
        try:
            self._fail_after(0)
            self.engine.add(request, [patches.ref for patches in prompt.patches])
            self._step_on()
            running, delivered = request.sampling.n, 0
            while running:
                if self.hangs and delivered == self.items:
                    await asyncio.Event().wait()
                deltas = await queue.get()
                running -= sum(delta.finish_reason is not None for delta in deltas)
                yield deltas
                delivered += 1
                self._fail_after(delivered)
        finally:
            self.engine.abort(request.request_id)
            # An abort over a network takes a while; closing must wait for it.
            await asyncio.sleep(0.01)
            self.closed.append(request.request_id)

    async def readiness(self) -> Readiness:
        return self.readiness_answer

    def _fail_after(self, delivered: int) -> None:
        if self.generate_error is not None and delivered == self.items:
            raise self.generate_error

    def _next_token(self, tokens: Sequence[int], sample: SampleSpec) -> int:
        if not self.reply:
            return self._made_up(tokens, sample)
        return self.reply[sample.index] if sample.index < len(self.reply) else self._eos_id

    def _step_on(self) -> None:
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step())

    async def _step(self) -> None:
        while self.engine.has_work:
            by_request: dict[str, list[Delta]] = {}
            for delta in self.engine.step():
                by_request.setdefault(delta.request_id, []).append(delta)
            for request_id, deltas in by_request.items():
                self._queues[request_id].put_nowait(tuple(deltas))
            await asyncio.sleep(self.step_delay_s)


def spell(text: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Token ids whose pieces make up ``text``, longest pieces first."""
    ids = {piece: token_id for token_id, piece in enumerate(vocabulary.pieces) if piece}
    rest, spelled = (b" " if vocabulary.strip_leading_space else b"") + text.encode(), []
    while rest:
        length = next(n for n in range(min(16, len(rest)), 0, -1) if rest[:n] in ids)
        spelled.append(ids[rest[:length]])
        rest = rest[length:]
    return tuple(spelled)


def mistral_common_data(name: str) -> Path:
    import mistral_common

    return Path(mistral_common.__file__).parent / "data" / name
