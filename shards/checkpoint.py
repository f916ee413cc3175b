"""Reads a rank's slices of a checkpoint, tensor by tensor, and accounts for every name in it.

What is read, and where to, the layers say (``Part``); nothing here knows the model's shape. Both
layouts load unchanged, from one file or many. Memory beyond the weights: one staging buffer, and
none where a slice can be read straight into its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from shards.config import Layout
from shards.errors import CheckpointError
from shards.layers import Part
from shards.names import disk_name, normal_name, root_prefixes
from shards.tensor_file import DTYPES, FileReader, StoredTensor, read_header

_STAGING_BYTES = 16 * 2**20
_NAMED_AT_MOST = 10
_STEMS: dict[Layout, str] = {"mistral": "consolidated", "hf": "model"}


def load_weights(parts: Iterable[Part], folder: Path, layout: Layout) -> int:
    """Fill every part from the checkpoint in ``folder``, in the dtype of its target.

    Tensors of another of the model's parts (the vision encoder's while the decoder loads, and the
    other way round) are skipped; anything else unknown is an error.

    Returns:
        bytes of weights read.

    Raises:
        CheckpointError: naming the tensors that are missing, unexpected or misshapen.
    """
    stored = stored_tensors(folder, layout)
    wanted = {disk_name(part.name, layout): part for part in parts}
    _account(wanted, stored, folder, layout)
    staging = torch.empty(_STAGING_BYTES, dtype=torch.uint8)
    bytes_read = 0
    # File by file and in the file's order, so that a cold disk is read forwards.
    order = sorted(wanted, key=lambda name: (stored[name].file, stored[name].offset))
    for file, names in groupby(order, key=lambda name: stored[name].file):
        with FileReader(file) as reader:
            for name in names:
                pairs = wanted[name].rotary_heads if layout == "mistral" else 0
                _fill(wanted[name], stored[name], reader, staging, pairs)
            bytes_read += reader.bytes_read
    return bytes_read


def stored_tensors(folder: Path, layout: Layout) -> dict[str, StoredTensor]:
    """The checkpoint's tensors by name; an index, where there is one, says which are its own.

    (A folder may hold the files of two shard sets: only the index tells them apart.)
    """
    stem = _STEMS[layout]
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        return _indexed_tensors(index, layout)
    single = folder / f"{stem}.safetensors"
    files = [single] if single.is_file() else sorted(folder.glob(f"{stem}*.safetensors"))
    if not files or (layout == "hf" and files != [single]):
        raise CheckpointError(f"{folder} holds neither {single.name} nor {index.name}")
    stored: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in read_header(file).items():
            name = normal_name(name, layout)
            if name in stored:
                raise CheckpointError(f"{name} is in both {stored[name].file} and {file}")
            stored[name] = tensor
    return stored


def _indexed_tensors(index: Path, layout: Layout) -> dict[str, StoredTensor]:
    try:
        weight_map: dict[str, str] = dict(json.loads(index.read_text())["weight_map"])
        names_of_files = sorted(set(weight_map.values()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index} holds no readable weight_map: {error}") from error
    for file_name in names_of_files:
        if Path(file_name).name != file_name:
            raise CheckpointError(f"{index} names {file_name}, which is not beside it")
    headers = {name: read_header(index.parent / name) for name in names_of_files}
    lost = [name for name, file in weight_map.items() if name not in headers[file]]
    if lost:
        raise CheckpointError(f"{index}: {_listed('not in the file it names', lost)}")
    return {normal_name(name, layout): headers[file][name] for name, file in weight_map.items()}


def _account(
    wanted: dict[str, Part], stored: dict[str, StoredTensor], folder: Path, layout: Layout
) -> None:
    """Refuse a checkpoint unless its names and shapes are exactly those wanted or skipped."""
    own_roots = {part.name.partition(".")[0] for part in wanted.values()}
    skipped = tuple(
        prefix for root, prefix in root_prefixes(layout).items() if root not in own_roots
    )
    missing = [name for name in wanted if name not in stored]
    unexpected = [name for name in stored if name not in wanted and not name.startswith(skipped)]
    present = wanted.keys() & stored.keys()
    misshapen = [
        f"{name} {list(stored[name].shape)} instead of {list(wanted[name].shape)}"
        for name in sorted(present)
        if stored[name].shape != wanted[name].shape
    ]
    undecodable = [
        f"{name} {stored[name].dtype}"
        for name in sorted(present)
        if stored[name].dtype not in DTYPES
    ]
    faults = {
        "missing": missing,
        "unexpected": unexpected,
        "misshapen": misshapen,
        f"not of dtype {', '.join(DTYPES)}": undecodable,
    }
    found = [_listed(fault, names) for fault, names in faults.items() if names]
    if found:
        raise CheckpointError(f"{folder}: {'; '.join(found)}")


def _listed(fault: str, names: list[str]) -> str:
    more = len(names) - _NAMED_AT_MOST
    shown = ", ".join(names[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
    return f"{len(names)} {fault}: {shown}"


def _fill(
    part: Part, stored: StoredTensor, reader: FileReader, staging: Tensor, pair_heads: int
) -> None:
    """Read the part's slice into its target.

    ``pair_heads`` above 0: the rows are Mistral's, in ``pair_heads`` heads of adjacent pairs.
    """
    dtype = DTYPES[stored.dtype]
    whole_width = math.prod(part.shape[1:])
    target = part.target.view(len(part.target), -1)
    height, width = target.shape
    first_row = part.start if part.axis == 0 else 0
    first_column = part.start if part.axis == 1 else 0
    head_dim = part.shape[0] // pair_heads if pair_heads else 1

    def read_rows(buffer: Tensor, row: int) -> None:
        """Rows from ``row`` of the slice on into ``buffer`` [rows, width], of the file's dtype."""
        place = buffer.view(-1).view(torch.uint8).numpy().data
        begin = ((first_row + row) * whole_width + first_column) * dtype.itemsize
        begin += stored.offset
        if width == whole_width:
            reader.read_into(place, begin)
            return
        segment = width * dtype.itemsize
        for index in range(len(buffer)):
            reader.read_into(
                place[index * segment : (index + 1) * segment],
                begin + index * whole_width * dtype.itemsize,
            )

    if target.device.type == "cpu" and target.dtype == dtype and not pair_heads:
        read_rows(target, 0)
        return
    # Whole heads at a time, so that the pairs of one head are in the buffer together.
    heads_at_once = max(1, len(staging) // (head_dim * width * dtype.itemsize))
    for row in range(0, height, heads_at_once * head_dim):
        rows = target[row : row + heads_at_once * head_dim]
        buffer = staging[: rows.numel() * dtype.itemsize].view(dtype).view(rows.shape)
        read_rows(buffer, row)
        rows.copy_(halves_from_pairs(buffer, head_dim) if pair_heads else buffer)


def halves_from_pairs(rows: Tensor, head_dim: int) -> Tensor:
    """Rows [heads * head_dim, width] rotated by adjacent pairs, put in the order of halves.

    One head of four rows: 0 1 2 3 -> 0 2 1 3.
    """
    pairs = rows.view(-1, head_dim // 2, 2, rows.shape[-1])
    return pairs.transpose(1, 2).reshape(rows.shape)
