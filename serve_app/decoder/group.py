"""The decoder tier: one Serve replica is one tensor-parallel group.

The replica owns its ranks as actors in its own STRICT_PACK placement group (bundle 0 is the
replica, bundle i + 1 is rank i), routes requests to rank 0 and its deltas back to their streams.
It imports no torch and computes nothing. For the accounts it reads the journals of its node.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray import serve
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from serve_app.config import Config
from serve_app.decoder.group_report import GroupReport
from serve_app.decoder.journal_reader import read_journals
from serve_app.decoder.loop import Emission
from serve_app.decoder.rank import Rank, RankSpec
from serve_app.decoder.streams import Streams
from serve_app.garbage import spare_what_is_loaded
from serve_app.log import logger
from serve_app.messages import Generate, JournalPage, Lacking, Pulse
from serve_app.observed import observed
from serve_app.serve_handles import unwrap
from serve_app.telemetry import DecoderMetrics
from shards.errors import GroupError
from shards.request import Delta
from shards.stats import EngineStats

# Long enough for the open streams to pass the error on.
_FAREWELL_S = 0.5
# Of a rank: what Ray allows an actor unless it is told.
_CALLS_BESIDE = 1000
_logger = logger(__name__)


class DecoderGroup:
    """Serve deployment; see ``app.py`` for how it is placed and scaled."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, config: Config, max_context_tokens: int
    ) -> None:
        self._tracing = observed(config, "decoder")
        self._decoder = config.decoder
        self.group = serve.get_replica_context().replica_id.unique_id
        self._streams = Streams()
        self._report = GroupReport(DecoderMetrics(self.group), self._decoder)
        if self._decoder.simulate is not None:
            _logger.warning("SIMULATED: no model is loaded, every answer of this group is made up")
        self._ranks = self._start_ranks(config, max_context_tokens)
        self._lost: BaseException | None = None
        reports = await asyncio.gather(*(rank.load.remote() for rank in self._ranks))
        self._rank_pids = tuple(report.pid for report in reports)
        self._stats: EngineStats | None = None
        self._watchers = [
            asyncio.create_task(self._watch(watched))
            for watched in (self._pump(), *(_follow(rank) for rank in self._ranks[1:]))
        ]
        await self._first_token()
        self._reporting = asyncio.create_task(self._report.run())
        spare_what_is_loaded()

    async def generate(self, job: Generate) -> AsyncGenerator[tuple[Delta, ...] | Lacking, None]:
        """Stream one request's deltas, all that are ready at a time; or say what it lacks, and end.

        Raises:
            RequestError, QueueFullError: refused by the engine.
            GroupError: the group was lost.
        """
        request_id = job.request.request_id
        stream = self._streams.open(request_id)
        running = job.request.sampling.n
        arrived_ns = time.time_ns()
        last: Delta | None = None
        begun = True
        try:
            lacking = await self._ranks[0].submit.remote(job)
            if lacking:
                begun = False
                yield Lacking(lacking)
                return
            self._report.began(job)
            while running:
                deltas = await stream.take()
                for delta in deltas:
                    running -= delta.finish_reason is not None
                    self._report.ended(delta)
                    last = delta
                yield deltas
        except ray.exceptions.RayError as error:
            # Serve wraps it again; without the first wrapping, which names it as its cause.
            raise unwrap(error) from None
        finally:
            self._streams.close(request_id)
            if begun:
                self._tell(job, arrived_ns, None if running else last)
            if begun and running and self._lost is None:
                # Not awaited: this also runs while the caller's disconnect cancels us.
                self._ranks[0].abort.remote((request_id,), job.request.attempt)

    def _tell(self, job: Generate, arrived_ns: int, last: Delta | None) -> None:
        """``last``: of the choice that ended last; None where the stream broke off."""
        request, trail = job.request, job.trail
        names: dict[str, str | int] = {
            "request_id": request.request_id,
            "team": trail.team,
            "attempt": request.attempt,
        }
        if last is None:
            _logger.warning("generation broken off", group=self.group, **names)
            if self._tracing is not None:
                error = "group lost" if self._lost is not None else "cancelled"
                self._tracing.record(
                    "decode", trail.traceparent, names, started_ns=arrived_ns, error=error
                )
            return
        assert last.finish_reason is not None
        names |= {
            "group": self.group,
            "prompt_tokens": last.prompt_tokens,
            "finish_reason": last.finish_reason.value,
        }
        _logger.info("generated", **names)
        if self._tracing is not None and last.timing is not None:
            self._tracing.record_timing(trail.traceparent, names, last.timing)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End requests, and those of the same ids that come later; unknown ids are fine.

        Their open streams end with ABORT deltas. On return, the journal says all that was computed
        for them.

        Raises:
            GroupError: the group was lost; it may be computing for a moment yet.
        """
        if self._lost is not None:
            raise self._lost
        try:
            await self._ranks[0].abort.remote(tuple(request_ids))
        except ray.exceptions.RayError as error:
            raise unwrap(error) from None

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        """What this node's groups, living and dead, have noted (see journal_reader.py)."""
        folder = self._decoder.journal_folder
        if folder is None:
            return ()
        return await asyncio.to_thread(read_journals, folder, bookmarks, time.time())

    async def pulse(self) -> Pulse:
        if self._lost is not None:
            raise self._lost
        assert self._stats is not None
        last_token_at = self._stats.last_token_at
        return Pulse(
            self.group,
            # One host, one monotonic clock: the rank's reading can be compared with ours.
            inf if last_token_at is None else time.monotonic() - last_token_at,
            self._decoder.token_timeout_s,
            self._stats,
            self._rank_pids,
        )

    async def check_health(self) -> None:
        """Serve replaces the replica, and with it all ranks, when this raises."""
        if self._lost is not None:
            raise self._lost

    def _start_ranks(self, config: Config, max_context_tokens: int) -> list[Any]:
        placement = ray.util.get_current_placement_group()
        # In Ray's own session folder, which goes when the system does.
        session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
        rendezvous = str(session / f"rendezvous-{uuid4().hex}")
        # Every stream's submission may wait (for its grammar, for features) while the one that had
        # its slot before is being aborted; aborts and emissions must pass them.
        streams = self._decoder.max_batch_sequences + self._decoder.max_waiting
        ranks = []
        for rank in range(self._decoder.tensor_parallel):
            spec = RankSpec(
                rank,
                self.group,
                config.model.path,
                self._decoder,
                max_context_tokens,
                rendezvous,
            )
            options = {
                "name": f"{config.model.name}:{self.group}:rank-{rank}",
                "num_cpus": self._decoder.cpus_per_rank,
                "num_gpus": self._decoder.gpus_per_rank,
                "max_concurrency": _CALLS_BESIDE + 2 * streams,
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    placement, placement_group_bundle_index=rank + 1
                ),
                "runtime_env": {
                    "env_vars": {"OMP_NUM_THREADS": str(self._decoder.threads_per_rank)}
                },
            }
            ranks.append(ray.remote(Rank).options(**options).remote(spec))
        return ranks

    async def _pump(self) -> None:
        """Carry rank 0's emissions to their streams for as long as the group lives."""
        async for ref in self._ranks[0].emissions.options(num_returns="streaming").remote():
            emission: Emission = await ref
            self._stats = emission.stats
            self._streams.deliver(emission.deltas)
            self._report.hear(emission.stats)

    async def _watch(self, lifetime: Any) -> None:
        """A group is lost with any of its ranks."""
        reason = "a rank left its group"
        try:
            await lifetime
        except Exception as error:
            reason = str(unwrap(error))
        if self._lost is None:
            self._lost = GroupError(f"group {self.group}: {reason}")
            self._streams.fail(self._lost)
            _logger.error("group lost", group=self.group, reason=reason)
            # A replica without its ranks is of no use and Serve would need three failed health
            # checks to see it; a dead actor is replaced, and avoided by the router, at once.
            await asyncio.sleep(_FAREWELL_S)
            os._exit(1)

    async def _first_token(self) -> None:
        """Ready means that a token came out, so wait for the engine's first canary."""
        while self._stats is None:
            if self._lost is not None:
                raise self._lost
            await asyncio.sleep(0.02)


async def _follow(rank: Any) -> None:
    await rank.follow.remote()
