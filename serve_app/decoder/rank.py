"""One rank of a tensor-parallel group: an actor, a process, a slice of the weights.

Rank 0 also runs the engine and streams what it emits. torch is imported when the model is loaded,
not when this module is: the decoder replica names this class and must stay free of torch, so that
its health checks and streams never wait behind an import or a forward pass.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.config import ConfigError, Decoder
from serve_app.decoder.grammars import Grammars
from serve_app.decoder.journal import JournalWriter
from serve_app.decoder.loop import Emission, EngineLoop
from serve_app.decoder.streams import LEAST_INTERVAL_S
from serve_app.feature_cache import KeptFeatures, Known
from serve_app.garbage import spare_what_is_loaded
from serve_app.messages import Generate
from shards.engine import Engine
from shards.errors import GroupError
from shards.request import Delta, GenerationRequest, Picture
from shards.roofline import ROOFLINES, RooflineRunner
from shards.stats import EngineStats

if TYPE_CHECKING:
    import numpy as np
    import torch

    from shards.comm import Communicator
    from shards.constraint import Grammar
    from shards.detokenizer import Vocabulary
    from shards.runner import ModelRunner
    from shards.step import Runner


@dataclass(frozen=True, slots=True)
class RankSpec:
    """What a rank needs to know.

    ``rendezvous`` is a file that does not exist yet, the same on every rank: a group lives on one
    host (STRICT_PACK), and unlike a TCP store a file opens no port.
    """

    rank: int
    group: str
    model: Path
    decoder: Decoder
    max_context_tokens: int
    rendezvous: str


@dataclass(frozen=True, slots=True)
class RankReport:
    """What loading took, for logs and status."""

    rank: int
    pid: int
    load_s: float


class Rank:
    """Methods are called by the decoder replica only, ``load`` first and on all ranks at once."""

    def __init__(self, spec: RankSpec) -> None:
        self._spec = spec
        self._runner: ModelRunner | None = None
        self._comm: Communicator | None = None
        self._journal: JournalWriter | None = None
        self._loop: EngineLoop | None = None
        self._grammars: Grammars | None = None
        # By request id and attempt, while they are prepared.
        self._compiling: dict[tuple[str, int], asyncio.Task[Grammar]] = {}
        self._kept = KeptFeatures(spec.decoder.features_bytes)
        self._outbox = _Outbox()

    async def load(self) -> RankReport:
        """Join the group, read this rank's slices and, on rank 0, start the engine.

        Raises:
            ShardsError: the checkpoint or the cut is wrong, a rank did not join, or no journal
                can be kept.
        """
        spec, started = self._spec, time.monotonic()
        if spec.rank == 0 and spec.decoder.journal_folder is not None:
            self._journal = JournalWriter(spec.decoder.journal_folder, spec.group)
        if spec.decoder.simulate is None:
            await asyncio.to_thread(self._load_model)
        if spec.rank == 0:
            self._start_engine(asyncio.get_running_loop())
        spare_what_is_loaded()
        return RankReport(spec.rank, os.getpid(), time.monotonic() - started)

    async def follow(self) -> None:
        """Run rank 0's plans until it closes the group; every rank but 0.

        Raises:
            GroupError: rank 0 died or fell silent.
        """
        from shards.lockstep import follow

        assert self._runner is not None
        assert self._comm is not None
        await asyncio.to_thread(follow, self._runner, self._comm)

    async def submit(self, job: Generate) -> tuple[int, ...]:
        """Admit a request to the engine; its deltas leave through ``emissions``.

        A picture's features are brought or kept here. Those that are kept are held from the moment
        they are found until the request ends, so it never lacks them later, when it begins again
        or its place in the KV cache is lost.

        Returns:
            places of the pictures whose features are neither; then nothing was begun.

        Raises:
            RequestError, QueueFullError: refused.
            GroupError: the engine has stopped.
            ray.exceptions.RayError: a picture's features were lost with their owner.
        """
        request, salt = job.request, job.request.tenant.cache_salt
        refs = {features.picture: features.ref for features in job.features}
        found: dict[Picture, np.ndarray] = {}
        lacking = []
        for place, picture in enumerate(request.pictures):
            if picture in refs or picture in found:
                continue
            kept = self._kept.get(Known(picture, salt))
            if kept is None:
                lacking.append(place)
            else:
                found[picture] = kept
        if lacking:
            return tuple(lacking)
        grammar = await self._grammar(request)
        brought = await asyncio.gather(*refs.values())
        for picture, features in zip(refs, brought, strict=True):
            found[picture] = self._kept.keep(Known(picture, salt), features)
        features = [found[picture] for picture in request.pictures]
        await asyncio.wrap_future(self._engine_loop().add(request, features, grammar))
        return ()

    async def abort(self, request_ids: Sequence[str], last_attempt: float = inf) -> None:
        """End requests within a step, and those of the same ids that come later.

        Their last deltas leave through ``emissions``; on return, the journal says all of them.
        """
        ended = self._engine_loop().abort(request_ids, last_attempt)
        for (request_id, attempt), task in self._compiling.items():
            if request_id in request_ids and attempt <= last_attempt:
                task.cancel()
        await asyncio.wrap_future(ended)

    async def emissions(self) -> AsyncGenerator[Emission, None]:
        """Everything the engine emits, coalesced while the replica is busy; one call per group.

        Raises:
            GroupError: the engine has stopped.
        """
        while True:
            yield await self._outbox.take()

    async def close(self) -> None:
        """Stop the engine and release the other ranks."""
        if self._loop is not None:
            await asyncio.to_thread(self._loop.close)
        if self._grammars is not None:
            self._grammars.close()

    def _load_model(self) -> None:
        import torch

        from shards.comm import ProcessGroup, SingleRank
        from shards.runner import ModelRunner

        spec, decoder = self._spec, self._spec.decoder
        torch.set_num_threads(decoder.threads_per_rank)
        device = _device(decoder)
        if decoder.tensor_parallel == 1:
            self._comm = SingleRank()
        else:
            self._comm = ProcessGroup(
                spec.rank,
                decoder.tensor_parallel,
                f"file://{spec.rendezvous}",
                decoder.backend,
                device,
                decoder.collective_timeout_s,
            )
        self._runner = ModelRunner.load(
            spec.model,
            self._comm,
            device=device,
            dtype=decoder.dtype,
            block_size=decoder.block_size,
            kv_cache_bytes=decoder.kv_cache_bytes,
            kernels=decoder.kernels,
            graphs=decoder.cuda_graphs,
        )

    def _start_engine(self, main: asyncio.AbstractEventLoop) -> None:
        from shards.tokenizer import Tokenizer

        decoder = self._spec.decoder
        vocabulary = Tokenizer.from_folder(self._spec.model).vocabulary
        self._grammars = Grammars(vocabulary, decoder.grammar)
        runner, num_blocks = self._engine_runner(vocabulary)
        engine = Engine(
            runner,
            vocabulary=vocabulary,
            num_blocks=num_blocks,
            block_size=decoder.block_size,
            max_context_tokens=self._spec.max_context_tokens,
            max_batch_sequences=decoder.max_batch_sequences,
            max_step_tokens=decoder.max_step_tokens,
            max_waiting=decoder.max_waiting,
            prefix_cache=decoder.prefix_cache != "off",
            max_drafts=decoder.max_drafts,
        )
        self._loop = EngineLoop(
            engine,
            publish=lambda emission: _call(main, self._outbox.put, emission),
            failed=lambda error: _call(main, self._outbox.fail, _group_lost(error)),
            canary_interval_s=min(decoder.token_timeout_s, decoder.collective_timeout_s) / 3,
            journal=self._journal,
        )
        self._loop.start()

    def _engine_runner(self, vocabulary: Vocabulary) -> tuple[Runner, int]:
        """What computes the steps, and how many KV blocks it has."""
        simulate = self._spec.decoder.simulate
        if simulate is not None:
            roofline = None if simulate.roofline is None else ROOFLINES[simulate.roofline]
            return RooflineRunner(_words(vocabulary), roofline), simulate.kv_blocks

        from shards.lockstep import Leader

        assert self._runner is not None
        assert self._comm is not None
        return Leader(self._runner, self._comm), self._runner.num_blocks

    async def _grammar(self, request: GenerationRequest) -> Grammar | None:
        """None also where the request was aborted meanwhile: the engine will not begin it."""
        if request.grammar is None or self._grammars is None:
            return None
        key = (request.request_id, request.attempt)
        task = asyncio.ensure_future(self._grammars.compiled(request.grammar, request.tenant.team))
        self._compiling[key] = task
        try:
            await asyncio.wait({task})
            return None if task.cancelled() else task.result()
        finally:
            task.cancel()
            self._compiling.pop(key, None)

    def _engine_loop(self) -> EngineLoop:
        if self._loop is None:
            raise RuntimeError(f"rank {self._spec.rank} runs no engine")
        return self._loop


class _Outbox:
    """Emissions waiting for the replica: merged, so that a slow consumer costs no memory, and steps
    quicker than any stream passes them on (``LEAST_INTERVAL_S``) are not told one by one. First
    tokens and endings do not wait."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._stats: EngineStats | None = None
        self._error: BaseException | None = None
        self._ready = asyncio.Event()
        self._urgent = asyncio.Event()
        self._due = 0.0

    def put(self, emission: Emission) -> None:
        self._deltas.extend(emission.deltas)
        self._stats = emission.stats
        self._ready.set()
        if any(map(_cannot_wait, emission.deltas)):
            self._urgent.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._ready.set()
        self._urgent.set()

    async def take(self) -> Emission:
        await self._ready.wait()
        await self._wait_until_due()
        self._ready.clear()
        self._urgent.clear()
        if self._stats is None:
            assert self._error is not None
            self._ready.set()
            raise self._error
        emission = Emission(tuple(self._deltas), self._stats)
        self._deltas, self._stats = [], None
        if self._error is not None:
            self._ready.set()
        return emission

    async def _wait_until_due(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._due:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._due):
                    await self._urgent.wait()
        self._due = loop.time() + LEAST_INTERVAL_S


def _cannot_wait(delta: Delta) -> bool:
    """A choice's first tokens, or its end."""
    return delta.finish_reason is not None or delta.completion_tokens == len(delta.token_ids)


def _group_lost(error: BaseException) -> GroupError:
    """Whatever stops an engine, its replica hears one error."""
    return error if isinstance(error, GroupError) else GroupError(f"engine stopped: {error!r}")


def _words(vocabulary: Vocabulary) -> list[int]:
    """Ids that spell plain ASCII, so that a made-up answer is text in every bit."""
    return [
        token_id
        for token_id, piece in enumerate(vocabulary.pieces)
        if piece and piece.isascii() and piece.decode().isprintable()
    ]


def _device(decoder: Decoder) -> torch.device:
    import torch

    if decoder.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("decoder.device: cuda, but PyTorch sees no GPU on this machine")
    # Ray shows each rank only its own GPU, which is therefore always number 0.
    return torch.device("cuda:0" if decoder.device == "cuda" else "cpu")


def _call(loop: asyncio.AbstractEventLoop, function: Any, argument: Any) -> None:
    loop.call_soon_threadsafe(function, argument)
