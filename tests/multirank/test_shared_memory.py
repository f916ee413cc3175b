"""The ranks' shared memory: exact to a bit, quick to notice a lost peer, asleep when idle."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shards import shared_memory
from shards.comm import Communicator, ProcessGroup
from shards.errors import GroupError
from shards.shared_memory import SLOT_BYTES
from tests.multirank.ranks import on_ranks

pytestmark = pytest.mark.multirank
CPU = torch.device("cpu")
SIZES = (1, 7, 1024, 3 * SLOT_BYTES // 4 + 5)


def values(rank: int, count: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * rank + count % 97)
    return (torch.randn(count, generator=generator) * 1000).to(dtype)


def collectives(comm: Communicator) -> list[Any]:
    """Every collective at sizes below and above a slot; what this rank saw."""
    assert isinstance(comm, ProcessGroup)
    assert comm.shares_memory
    seen: list[Any] = []
    for count in SIZES:
        for dtype in (torch.float32, torch.int64, torch.bfloat16):
            mine = values(comm.rank, count, dtype)
            seen.append(comm.all_reduce(mine.clone()))
            seen.append(comm.all_reduce(mine.clone(), "max"))
            seen.append(comm.all_reduce(mine.clone(), "min"))
            seen.append(comm.all_gather(mine))
            seen.append(comm.broadcast(mine.clone()))
    every_other = values(comm.rank, 64)[::2]
    seen.append(comm.all_reduce(every_other))
    seen.append(comm.broadcast_object({"plan": (1, 2)} if comm.rank == 0 else None))
    large = comm.broadcast_object(bytes(range(256)) * 9000 if comm.rank == 0 else None)
    assert large == bytes(range(256)) * 9000
    assert comm.seconds > 0
    return seen


@pytest.mark.parametrize("size", [2, 4])
def test_collectives_are_those_of_one_process_and_the_same_on_all_ranks(size):
    ranks = on_ranks(size, collectives)
    results = iter(ranks[0])
    for count in SIZES:
        for dtype in (torch.float32, torch.int64, torch.bfloat16):
            inputs = torch.stack([values(rank, count, dtype) for rank in range(size)])
            total = inputs[0].clone()
            for one in inputs[1:]:
                total += one
            expected = (total, inputs.amax(0), inputs.amin(0), inputs, inputs[0])
            for one in expected:
                assert torch.equal(next(results), one)
    strided = values(0, 64)[::2].clone()
    for rank in range(1, size):
        strided += values(rank, 64)[::2]
    assert torch.equal(next(results), strided)
    assert next(results) == {"plan": (1, 2)}
    for seen in ranks[1:]:
        for one, other in zip(seen, ranks[0], strict=True):
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def out_of_step(comm: Communicator) -> str:
    try:
        comm.all_reduce(torch.ones(4 if comm.rank else 8))
    except GroupError as error:
        with pytest.raises(GroupError, match="lost before"):
            comm.all_reduce(torch.ones(4))
        return str(error)
    return ""


def test_ranks_that_make_different_calls_are_told_so():
    first, second = on_ranks(2, out_of_step)
    assert "rank 1 does all_reduce sum of 16 bytes, this one all_reduce sum of 32" in first
    assert "rank 0 does all_reduce sum of 32 bytes, this one all_reduce sum of 16" in second


# -- lost peers -----------------------------------------------------------------------------------


def peer(rendezvous: str, meets: int, end: Callable[[], None], timeout_s: float) -> None:
    torch.set_num_threads(1)
    comm = ProcessGroup(1, 2, rendezvous, "gloo", CPU, timeout_s)
    for _ in range(meets):
        comm.all_reduce(torch.ones(8))
    end()


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stop_me() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def await_tensor(comm: Communicator) -> None:
    comm.all_reduce(torch.ones(8))


def await_next_but_one(comm: Communicator) -> None:
    # Rank 0 need not wait for who only listens, until a slot is to be written again.
    for _ in range(3):
        comm.broadcast_object("plan")


@pytest.mark.parametrize("call", [await_tensor, await_next_but_one])
@pytest.mark.parametrize(
    ("end", "timeout_s", "reason", "within_s"),
    [(kill_me, 60.0, "rank 1 is gone", 3.0), (stop_me, 1.5, "did not answer within 1.5 s", 6.0)],
)
def test_a_lost_peer_is_an_error_and_no_hang(
    tmp_path: Path, call, end, timeout_s, reason, within_s
):
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    before = set(os.listdir("/dev/shm"))
    other = multiprocessing.get_context("spawn").Process(
        target=peer, args=(rendezvous, 2, end, max(timeout_s, 30))
    )
    other.start()
    comm = ProcessGroup(0, 2, rendezvous, "gloo", CPU, 60)
    # The group takes seconds to form; only the calls are to be short.
    comm._shared._timeout_s = timeout_s  # type: ignore[union-attr]
    try:
        assert comm.all_reduce(torch.ones(8)).tolist() == [2.0] * 8
        comm.all_reduce(torch.ones(8))
        started = time.monotonic()
        with pytest.raises(GroupError, match=f"rank 0 of 2 lost its group: .*{reason}"):
            call(comm)
        assert time.monotonic() - started < within_s
    finally:
        comm.close()
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
        other.join(10)
    files = {file for file in os.listdir("/dev/shm") if not file.startswith("PostgreSQL")}
    assert not {file for file in files - before if "pixtral-ranks" in file or "torch" in file}


def leave_early(comm: Communicator) -> str:
    if comm.rank == 1:
        return ""
    try:
        comm.all_reduce(torch.ones(8))
    except GroupError as error:
        return str(error)
    return "no error"


def test_a_peer_that_leaves_is_noticed():
    assert "rank 1 is gone" in on_ranks(2, leave_early)[0]


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1024, reason="no descriptor of such a number"
)
def test_a_peer_is_watched_through_a_descriptor_of_any_number():
    with subprocess.Popen(["sleep", "60"]) as process:
        opened = os.pidfd_open(process.pid)
        high = fcntl.fcntl(opened, fcntl.F_DUPFD, 1024)
        try:
            assert not shared_memory._readable(high)
            process.kill()
            process.wait()
            assert shared_memory._readable(high)
        finally:
            process.kill()
            os.close(high)
            os.close(opened)


# -- idle -----------------------------------------------------------------------------------------


def idle_share(comm: Communicator) -> tuple[float, float]:
    """Share of a core used while waiting 2 s for a word; seconds from sending to hearing it."""
    comm.broadcast_object("ready" if comm.rank == 0 else None)
    if comm.rank == 0:
        time.sleep(2.0)
    cpu, wall = time.process_time(), time.monotonic()
    sent = comm.broadcast_object(time.monotonic() if comm.rank == 0 else None)
    heard = time.monotonic()
    share = (time.process_time() - cpu) / max(heard - wall, 1e-9)
    return share, heard - sent


def test_ranks_sleep_while_idle():
    for share, delay in on_ranks(3, idle_share)[1:]:
        assert share < 0.02
        assert delay < 0.05  # tens of microseconds on a quiet machine


# -- without shared memory ------------------------------------------------------------------------


def without(comm: Communicator) -> list[Any]:
    assert isinstance(comm, ProcessGroup)
    return [
        comm.shares_memory,
        comm.all_reduce(torch.full((3,), comm.rank + 1.0)).tolist(),
        comm.broadcast_object("plan" if comm.rank == 0 else None),
    ]


def elsewhere(rank: int, rendezvous: str) -> list[Any]:
    """A rank that sees no shared memory, as on another host."""
    if rank == 1:
        vars(shared_memory)["os"] = _OtherHost()
    comm = ProcessGroup(rank, 2, rendezvous, "gloo", CPU, 60)
    try:
        return without(comm)
    finally:
        comm.close()


class _OtherHost:
    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: str, flags: int) -> int:
        raise FileNotFoundError(path)


def test_all_ranks_use_gloo_where_one_cannot_see_the_memory(tmp_path: Path):
    rendezvous = f"file://{tmp_path / 'rendezvous'}"
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        results = pool.starmap(elsewhere, [(rank, rendezvous) for rank in range(2)], chunksize=1)
    assert results == [[False, [3.0] * 3, "plan"]] * 2
