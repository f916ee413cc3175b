"""Runs a job's ranks, each a process of its own, and says why when one fails.

This process imports no torch; it hears rank 0's text, and every rank's error, over pipes.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from shards.errors import GroupError, ShardsError
from shards.offline import Job, Report, run_rank

# How long the others may take to die of what the first one died of.
_AFTERSHOCK_S = 1.0


def run_ranks(job: Job, say: Callable[[str], None]) -> Report:
    """Run the group to its end; no process is left, whatever happens.

    Args:
        say: takes the text of choice 0 as it comes.

    Raises:
        ShardsError: what a rank said it failed of, or by what it was killed.
    """
    spawn = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    channels: list[Connection] = []
    with tempfile.TemporaryDirectory() as folder:
        # In a file: a process that dies before it has read a large argument blocks ``start``.
        file = Path(folder, "job")
        file.write_bytes(pickle.dumps(job))
        try:
            for rank in range(job.place.ranks):
                channel, end = spawn.Pipe(duplex=False)
                process: BaseProcess = spawn.Process(
                    target=_rank_main, args=(rank, file, end), name=f"rank {rank}", daemon=True
                )
                process.start()
                end.close()
                processes.append(process)
                channels.append(channel)
            return _listen(processes, channels, say)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _listen(
    processes: Sequence[BaseProcess], channels: Sequence[Connection], say: Callable[[str], None]
) -> Report:
    """Until all ranks have ended, or a little longer than the first that failed."""
    running = {process.sentinel: process for process in processes}
    speaking = list(channels)
    errors: list[ShardsError] = []
    report: Report | None = None
    deadline: float | None = None
    while running or speaking:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready = wait([*running, *speaking], timeout)
        if not ready:
            break
        for source in ready:
            if isinstance(source, int):
                process = running.pop(source)
                process.join()
                if process.exitcode and deadline is None:
                    deadline = time.monotonic() + _AFTERSHOCK_S
                continue
            match _received(source):
                case str(text):
                    say(text)
                case Report() as report:
                    pass
                case ShardsError() as error:
                    errors.append(error)
                case _:
                    speaking = [channel for channel in speaking if channel is not source]
    if report is None or any(process.exitcode for process in processes):
        raise _first_cause(processes, errors)
    return report


def _received(channel: Any) -> object:
    """A message, or None at the channel's end."""
    try:
        return channel.recv()
    except EOFError:
        return None


def _first_cause(processes: Sequence[BaseProcess], errors: Sequence[ShardsError]) -> ShardsError:
    """A kill explains lost groups, and so does any rank's own error; a lost group explains none."""
    for process in processes:
        if process.exitcode is not None and process.exitcode < 0:
            return GroupError(
                f"{process.name} was killed by {signal.Signals(-process.exitcode).name}"
            )
    for error in sorted(errors, key=lambda error: isinstance(error, GroupError)):
        return error
    return GroupError("a rank failed; its traceback is above")


def _rank_main(rank: int, job: Path, channel: Connection) -> None:
    # A terminal interrupts all processes at once; the parent ends the ranks.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        rendezvous = f"file://{job.with_name('rendezvous')}"
        report = run_rank(rank, pickle.loads(job.read_bytes()), rendezvous, channel.send)
    except ShardsError as error:
        channel.send(error)
        sys.exit(1)
    if report is not None:
        channel.send(report)
