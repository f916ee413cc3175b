"""Runs a function on every rank of a Gloo group, each rank a process of its own."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch

from shards.comm import Communicator, ProcessGroup, SingleRank

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT_S = 240.0


def on_ranks(
    size: int,
    function: Callable[Concatenate[Communicator, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> list[T]:
    """``function(comm, *args)`` on each of ``size`` ranks; what each returned, by rank.

    A group of one runs right here.
    """
    if size == 1:
        return [function(SingleRank(), *args, **kwargs)]
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = f"file://{Path(folder) / 'rendezvous'}"
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(size, mp_context=spawn) as pool:
            futures = [
                pool.submit(_on_rank, rank, size, rendezvous, function, args, kwargs)
                for rank in range(size)
            ]
            return [future.result(TIMEOUT_S) for future in futures]


def _on_rank(
    rank: int,
    size: int,
    rendezvous: str,
    function: Callable[..., T],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> T:
    torch.set_num_threads(1)
    comm = ProcessGroup(rank, size, rendezvous, "gloo", torch.device("cpu"), TIMEOUT_S)
    try:
        return function(comm, *args, **kwargs)
    finally:
        comm.close()
