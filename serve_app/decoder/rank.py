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
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve_app.config import Decoder
from serve_app.decoder.journal import JournalWriter
from serve_app.decoder.loop import Emission, EngineLoop
from serve_app.messages import Generate
from shards.errors import GroupError
from shards.request import Delta

if TYPE_CHECKING:
    import torch

    from shards.comm import Communicator
    from shards.engine import EngineStats
    from shards.runner import ModelRunner


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
    kv_blocks: int


class Rank:
    """Methods are called by the decoder replica only, ``load`` first and on all ranks at once."""

    def __init__(self, spec: RankSpec) -> None:
        self._spec = spec
        self._runner: ModelRunner | None = None
        self._comm: Communicator | None = None
        self._loop: EngineLoop | None = None
        self._outbox = _Outbox()

    async def load(self) -> RankReport:
        """Join the group, read this rank's slices and, on rank 0, start the engine.

        Raises:
            ShardsError: the checkpoint or the cut is wrong, or a rank did not join.
        """
        report = await asyncio.to_thread(self._load)
        if self._spec.rank == 0:
            self._start_engine(asyncio.get_running_loop())
        return report

    async def follow(self) -> None:
        """Run rank 0's plans until it closes the group; every rank but 0.

        Raises:
            GroupError: rank 0 died or fell silent.
        """
        from shards.lockstep import follow

        assert self._runner is not None
        assert self._comm is not None
        await asyncio.to_thread(follow, self._runner, self._comm)

    async def submit(self, job: Generate) -> None:
        """Admit a request to the engine; its deltas leave through ``emissions``.

        Raises:
            RequestError, QueueFullError: refused.
            GroupError: the engine has stopped.
            ray.exceptions.RayError: a picture's features were lost with their owner.
        """
        features = await asyncio.gather(*(picture.ref for picture in job.features))
        await asyncio.wrap_future(self._engine_loop().add(job.request, features))

    async def abort(self, request_ids: Sequence[str], last_attempt: float = inf) -> None:
        """End requests within a step, and those of the same ids that come later.

        Their last deltas leave through ``emissions``; on return, the journal says all of them.
        """
        await asyncio.wrap_future(self._engine_loop().abort(request_ids, last_attempt))

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

    def _load(self) -> RankReport:
        import torch

        from shards.comm import ProcessGroup, SingleRank
        from shards.runner import ModelRunner

        started = time.monotonic()
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
        )
        return RankReport(
            spec.rank, os.getpid(), time.monotonic() - started, self._runner.num_blocks
        )

    def _start_engine(self, main: asyncio.AbstractEventLoop) -> None:
        from shards.engine import Engine
        from shards.lockstep import Leader
        from shards.tokenizer import Tokenizer

        assert self._runner is not None
        assert self._comm is not None
        decoder = self._spec.decoder
        engine = Engine(
            Leader(self._runner, self._comm),
            vocabulary=Tokenizer.from_folder(self._spec.model).vocabulary,
            num_blocks=self._runner.num_blocks,
            block_size=self._runner.block_size,
            max_context_tokens=self._spec.max_context_tokens,
            max_batch_sequences=decoder.max_batch_sequences,
            max_step_tokens=decoder.max_step_tokens,
            max_waiting=decoder.max_waiting,
        )
        journal = None
        if decoder.journal_folder is not None:
            journal = JournalWriter(decoder.journal_folder, self._spec.group)
        self._loop = EngineLoop(
            engine,
            publish=lambda emission: _call(main, self._outbox.put, emission),
            failed=lambda error: _call(main, self._outbox.fail, _group_lost(error)),
            canary_interval_s=min(decoder.token_timeout_s, decoder.collective_timeout_s) / 3,
            journal=journal,
        )
        self._loop.start()

    def _engine_loop(self) -> EngineLoop:
        if self._loop is None:
            raise RuntimeError(f"rank {self._spec.rank} runs no engine")
        return self._loop


class _Outbox:
    """Emissions waiting for the replica: merged, so that a slow consumer costs no memory."""

    def __init__(self) -> None:
        self._deltas: list[Delta] = []
        self._stats: EngineStats | None = None
        self._error: BaseException | None = None
        self._ready = asyncio.Event()

    def put(self, emission: Emission) -> None:
        self._deltas.extend(emission.deltas)
        self._stats = emission.stats
        self._ready.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._ready.set()

    async def take(self) -> Emission:
        await self._ready.wait()
        self._ready.clear()
        if self._stats is None:
            assert self._error is not None
            self._ready.set()
            raise self._error
        emission = Emission(tuple(self._deltas), self._stats)
        self._deltas, self._stats = [], None
        if self._error is not None:
            self._ready.set()
        return emission


def _group_lost(error: BaseException) -> GroupError:
    """Whatever stops an engine, its replica hears one error."""
    return error if isinstance(error, GroupError) else GroupError(f"engine stopped: {error!r}")


def _device(decoder: Decoder) -> torch.device:
    import torch

    # Ray shows each rank only its own GPU, which is therefore always number 0.
    return torch.device("cuda:0" if decoder.device == "cuda" else "cpu")


def _call(loop: asyncio.AbstractEventLoop, function: Any, argument: Any) -> None:
    loop.call_soon_threadsafe(function, argument)
