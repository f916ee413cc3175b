"""A safetensors file: its header, and reads of chosen bytes straight into memory. No mmap.

A mapped file would count every touched page as the process's own and be read in whole pages; here
a rank reads the bytes of its slices and no others.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from shards.errors import CheckpointError

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_HEADER_LIMIT = 100 * 2**20


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as the header describes it; ``offset`` is the byte in the file where it begins."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of ``file`` by name.

    Raises:
        CheckpointError: not a whole safetensors file.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_HEADER_LIMIT, size - 8):
                raise CheckpointError(f"{file} is no safetensors file: header of {length} bytes")
            header = json.loads(stream.read(length))
        begin = 8 + length
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            tensor = StoredTensor(file, entry["dtype"], tuple(entry["shape"]), begin + first)
            if begin + last > size:
                raise CheckpointError(
                    f"{file} is cut short: {name} ends at byte {begin + last}, the file at {size}"
                )
            dtype = DTYPES.get(tensor.dtype)
            if dtype is not None and last - first != math.prod(tensor.shape) * dtype.itemsize:
                raise CheckpointError(f"{file}: {name} is {last - first} bytes, not its shape's")
            tensors[name] = tensor
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    return tensors


class FileReader:
    """Counted reads from one file, as a context manager."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.bytes_read = 0
        self._descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> FileReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill ``buffer`` (of bytes) from ``offset`` on.

        Raises:
            CheckpointError: the file ends before.
        """
        filled = 0
        while filled < len(buffer):
            count = os.preadv(self._descriptor, [buffer[filled:]], offset + filled)
            if count == 0:
                raise CheckpointError(f"{self.file} ended at byte {offset + filled}")
            filled += count
        self.bytes_read += filled
