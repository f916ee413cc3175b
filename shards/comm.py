"""The only file that touches torch.distributed.

Tensors in a GPU's memory travel by NCCL. Ranks of one host share memory (shared_memory.py) for
tensors in main memory and for objects (step plans), so that control never queues behind device
work; Gloo brings the ranks together, and does the rest where no memory can be shared.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.distributed as dist

from shards.errors import GroupError
from shards.shared_memory import Reduction, SharedMemory

T = TypeVar("T")
_REDUCTIONS = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX, "min": dist.ReduceOp.MIN}


class Communicator(Protocol):
    """Collectives among the ranks of one tensor-parallel group.

    Every call is collective: all ranks make it in the same order with the same shapes.
    All raise GroupError when a peer died or stayed silent past the time-out.

    Attributes:
        seconds: this rank has spent in collectives of tensors, waiting for its peers included; on
            a GPU, which waits by itself, only what launching them took.
    """

    rank: int
    size: int
    seconds: float

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
    seconds = 0.0

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
        self.seconds = 0.0
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
            self._shared = SharedMemory.join(rank, size, self._exchange, timeout_s)
        except RuntimeError as error:
            raise GroupError(f"rank {rank} of {size} could not join its group: {error}") from error

    @property
    def shares_memory(self) -> bool:
        """Whether main memory and objects travel by memory that the ranks share, not by Gloo."""
        return self._shared is not None

    def all_reduce(self, tensor: torch.Tensor, op: Reduction = "sum") -> torch.Tensor:
        with self._collective():
            if (shared := self._shared_for(tensor)) is None:
                dist.all_reduce(tensor, op=_REDUCTIONS[op])
            elif tensor.is_contiguous():
                shared.all_reduce(tensor, op)
            else:
                dense = tensor.contiguous()
                shared.all_reduce(dense, op)
                tensor.copy_(dense)
        return tensor

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.contiguous()
        gathered = tensor.new_empty((self.size, *tensor.shape))
        with self._collective():
            if (shared := self._shared_for(tensor)) is None:
                dist.all_gather(list(gathered.unbind(0)), tensor)
            else:
                shared.all_gather(tensor, gathered)
        return gathered

    def broadcast(self, tensor: torch.Tensor) -> torch.Tensor:
        with self._collective():
            if (shared := self._shared_for(tensor)) is None:
                dist.broadcast(tensor, src=0)
            elif tensor.is_contiguous():
                shared.broadcast(tensor)
            else:
                dense = tensor.contiguous()
                shared.broadcast(dense)
                tensor.copy_(dense)
        return tensor

    def broadcast_object(self, value: T | None) -> T:
        payload = b""
        if self.rank == 0:
            payload = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            if self._shared is None:
                payload = self._broadcast_bytes(payload)
            else:
                payload = self._shared.broadcast_bytes(payload)
        except (RuntimeError, GroupError) as error:
            raise self._broken(error) from error
        result: T = value if value is not None else pickle.loads(payload)
        return result

    def close(self) -> None:
        if self._shared is not None:
            self._shared.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _shared_for(self, tensor: torch.Tensor) -> SharedMemory | None:
        return self._shared if tensor.device.type == "cpu" else None

    def _broadcast_bytes(self, payload: bytes) -> bytes:
        """Rank 0's bytes on every rank, over Gloo."""
        size = torch.tensor([len(payload)])
        dist.broadcast(size, src=0, group=self._control)
        if self.rank == 0:
            buffer = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
        else:
            buffer = torch.empty(int(size.item()), dtype=torch.uint8)
        dist.broadcast(buffer, src=0, group=self._control)
        return buffer.numpy().tobytes()

    def _exchange(self, value: object) -> list[Any]:
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._control)
        return values

    @contextmanager
    def _collective(self) -> Iterator[None]:
        """Count the time, and give a failure the group's name for it."""
        started = time.perf_counter()
        try:
            yield
        except (RuntimeError, GroupError) as error:
            raise self._broken(error) from error
        finally:
            self.seconds += time.perf_counter() - started

    def _broken(self, error: Exception) -> GroupError:
        first_line = str(error).splitlines()[0]
        return GroupError(f"rank {self.rank} of {self.size} lost its group: {first_line}")
