"""A tensor-parallel group to measure: each rank a process with its own threads, one engine."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import torch

from ops.bench.engine.model import Model
from ops.bench.engine.ours import CPU, Ours, Settings, load_runner
from ops.bench.engine.prompts import Prompt
from ops.bench.engine.run import Run
from shards.comm import Communicator, ProcessGroup, SingleRank
from shards.lockstep import follow

# Ranks load side by side on few cores, and sit idle while others are measured.
_TIMEOUT_S = 1800.0
_KV_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Measured:
    """A run, and how long of it rank 0 spent in collectives, waiting for the others included; plans
    on their way to the others are not counted."""

    run: Run
    communication_s: float


class Group:
    """Ranks that stay until ``close``.

    Raises:
        EOFError: rank 0 died; its own traceback is on stderr.
    """

    def __init__(self, model: Model, ranks: int, threads: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._processes: list[BaseProcess] = []
        self._channel, end = spawn.Pipe()
        for rank in range(ranks):
            process: BaseProcess = spawn.Process(
                target=_rank_main,
                args=(
                    _Seat(rank, ranks, threads, f"file://{Path(self._folder.name, 'rendezvous')}"),
                    model,
                    end if rank == 0 else None,
                ),
                daemon=True,
            )
            process.start()
            self._processes.append(process)
        end.close()
        self._channel.recv()  # it is loaded

    def run(self, prompts: Sequence[Prompt], new_tokens: int) -> Measured:
        self._channel.send((prompts, new_tokens))
        measured: Measured = self._channel.recv()
        return measured

    def idle_share(self, seconds: float) -> float:
        """Of a core, that the busiest rank uses while it has nothing to do."""
        before = self._cpu_s()
        time.sleep(seconds)
        spent = zip(self._cpu_s(), before, strict=True)
        return max(now - then for now, then in spent) / seconds

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._channel.close()
        self._folder.cleanup()

    def _cpu_s(self) -> list[float]:
        times = [psutil.Process(process.pid).cpu_times() for process in self._processes]
        return [spent.user + spent.system for spent in times]


@dataclass(frozen=True, slots=True)
class _Seat:
    rank: int
    ranks: int
    threads: int
    rendezvous: str

    def join(self) -> Communicator:
        if self.ranks == 1:
            return SingleRank()
        return ProcessGroup(self.rank, self.ranks, self.rendezvous, "gloo", CPU, _TIMEOUT_S)


def _rank_main(seat: _Seat, model: Model, channel: Connection | None) -> None:
    torch.set_num_threads(seat.threads)
    settings = Settings(kv_bytes=_KV_BYTES)
    comm = seat.join()
    if channel is None:
        follow(load_runner(model, comm, settings), comm)
        return
    ours = Ours.load(model, settings, comm)
    channel.send("loaded")
    while True:
        prompts, new_tokens = channel.recv()
        before = comm.seconds
        run = ours.run(prompts, new_tokens)
        channel.send(Measured(run, comm.seconds - before))
