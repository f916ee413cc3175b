"""The only file that touches torch.distributed.

Tensor collectives run on the compute device's backend (NCCL or Gloo). Objects (step plans) travel
over a Gloo group of their own, so that control never queues behind device work.
"""

from __future__ import annotations

import os
import pickle
from datetime import timedelta
from typing import Literal, Protocol, TypeVar

import torch
import torch.distributed as dist

from shards.errors import GroupError

T = TypeVar("T")
Reduction = Literal["sum", "max", "min"]
_REDUCTIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class Communicator(Protocol):
    """Collectives among the ranks of one tensor-parallel group.

    Every call is collective: all ranks make it in the same order with the same shapes.
    All raise GroupError when a peer died or stayed silent past the time-out.
    """

    rank: int
    size: int

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        """Reduce in place; returns ``tensor``."""

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """[*shape] on each rank -> [size, *shape] on every rank."""

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy rank 0's values into every rank's ``tensor``, in place; returns it."""

    def broadcast_object(self, value: T | None) -> T:
        """Rank 0's picklable value on every rank (the others pass None)."""

    def close(self) -> None: ...


class SingleRank:
    """A group of one: nothing to exchange."""

    rank = 0
    size = 1

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        del op
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.unsqueeze(0)

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor

    def broadcast_object(self, value: T | None) -> T:
        if value is None:
            raise ValueError("rank 0 must give the object to broadcast")
        return value

    def close(self) -> None:
        return None


class ProcessGroup:
    """A torch.distributed group; one per process.

    Args:
        init_method: ``tcp://127.0.0.1:PORT`` or ``file:///path``, the same on every rank.
        backend: ``gloo`` or ``nccl``.
        device: where tensor collectives run.
        timeout_s: a silent peer becomes a GroupError after this long.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        init_method: str,
        backend: Literal["gloo", "nccl"],
        device: torch.device,
        timeout_s: float,
    ) -> None:
        self.rank = rank
        self.size = size
        # Loopback: Gloo would otherwise resolve the host's name and listen on an outside interface.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        timeout = timedelta(seconds=timeout_s)
        try:
            dist.init_process_group(
                backend,
                init_method=init_method,
                rank=rank,
                world_size=size,
                timeout=timeout,
                device_id=device if backend == "nccl" else None,
            )
            self._control = (
                dist.group.WORLD
                if backend == "gloo"
                else dist.new_group(backend="gloo", timeout=timeout)
            )
        except RuntimeError as error:
            raise GroupError(f"rank {rank} of {size} could not join its group: {error}") from error

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        try:
            dist.all_reduce(tensor, op=_REDUCTIONS[op])
        except RuntimeError as error:
            raise self._broken(error) from error
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.contiguous()
        gathered = tensor.new_empty((self.size, *tensor.shape))
        try:
            dist.all_gather(list(gathered.unbind(0)), tensor)
        except RuntimeError as error:
            raise self._broken(error) from error
        return gathered

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        try:
            dist.broadcast(tensor, src=0)
        except RuntimeError as error:
            raise self._broken(error) from error
        return tensor

    def broadcast_object(self, value: T | None) -> T:
        size = torch.zeros(1, dtype=torch.int64)
        payload = b""
        if self.rank == 0:
            payload = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
            size[0] = len(payload)
        try:
            dist.broadcast(size, src=0, group=self._control)
            if self.rank == 0:
                buffer = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
            else:
                buffer = torch.empty(int(size.item()), dtype=torch.uint8)
            dist.broadcast(buffer, src=0, group=self._control)
        except RuntimeError as error:
            raise self._broken(error) from error
        result: T = value if value is not None else pickle.loads(buffer.numpy().tobytes())
        return result

    def close(self) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()

    def _broken(self, error: RuntimeError) -> GroupError:
        first_line = str(error).splitlines()[0]
        return GroupError(f"rank {self.rank} of {self.size} lost its group: {first_line}")
