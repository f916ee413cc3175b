"""Attention: causal over a paged KV cache, block-diagonal over packed pictures.

Shapes: T tokens of a step, H query heads, K key/value heads (H a multiple of K), D channels per
head. A slot is a token's place in the cache: block id * block size + offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, the field's name for it

from shards.batch import Work


@dataclass(frozen=True, slots=True)
class PagedCache:
    """Keys and values of one layer, each [blocks, block_size, K, D]."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(
        cls,
        blocks: int,
        block_size: int,
        kv_heads: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> PagedCache:
        shape = (blocks, block_size, kv_heads, head_dim)
        # Zeros, not garbage: a masked NaN would still spread through 0 * NaN.
        return cls(
            torch.zeros(shape, device=device, dtype=dtype),
            torch.zeros(shape, device=device, dtype=dtype),
        )

    def write(self, slots: Tensor, keys: Tensor, values: Tensor) -> None:
        """Put [T, K, D] at ``slots`` [T]."""
        self.keys.flatten(0, 1)[slots] = keys
        self.values.flatten(0, 1)[slots] = values

    def read(self, blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of whole ``blocks`` [B], one after the other: [B * block_size, K, D]."""
        return (
            self.keys.index_select(0, blocks).flatten(0, 1),
            self.values.index_select(0, blocks).flatten(0, 1),
        )


@dataclass(frozen=True, slots=True)
class Chunk:
    """A sequence that computes several tokens: step rows [first, last), its last of ``length``."""

    first: int
    last: int
    length: int
    blocks: Tensor


@dataclass(frozen=True, slots=True)
class StepLayout:
    """Where a step's tokens stand in their sequences and in the cache; the same for all layers.

    Attributes:
        positions: [T] in the sequence.
        slots: [T] where each token's key and value go.
        decode_rows: [N] step rows of sequences that compute one token.
        decode_blocks: [N, B] their blocks, padded to the longest.
        decode_mask: [N, B * block_size] true where a token of the sequence stands.
        chunks: the other sequences.
    """

    positions: Tensor
    slots: Tensor
    decode_rows: Tensor
    decode_blocks: Tensor
    decode_mask: Tensor
    chunks: tuple[Chunk, ...]

    @classmethod
    def of(cls, sequences: Sequence[Work], block_size: int, device: torch.device) -> StepLayout:
        """Lay out a step; every index is computed once here, on the host, for all layers."""
        offsets = torch.arange(block_size)
        positions, new_slots, chunks = [], [], []
        decode_rows: list[int] = []
        decode_blocks: list[Tensor] = []
        decode_lengths: list[int] = []
        row = 0
        for sequence in sequences:
            count = len(sequence.token_ids)
            stop = sequence.start + count
            # A table may already hold blocks for tokens to come.
            blocks = torch.tensor(sequence.block_table[: -(-stop // block_size)])
            slots = (blocks.unsqueeze(1) * block_size + offsets).flatten()
            positions.append(torch.arange(sequence.start, stop))
            new_slots.append(slots[sequence.start : stop])
            if count == 1:
                decode_rows.append(row)
                decode_blocks.append(blocks)
                decode_lengths.append(stop)
            else:
                chunks.append(Chunk(row, row + count, stop, blocks.to(device)))
            row += count
        padded = (
            torch.nn.utils.rnn.pad_sequence(decode_blocks, batch_first=True)
            if decode_blocks
            else torch.zeros(0, 0, dtype=torch.int64)
        )
        places = torch.arange(padded.shape[1] * block_size)
        lengths = torch.tensor(decode_lengths, dtype=torch.int64)
        return cls(
            positions=torch.cat(positions).to(device),
            slots=torch.cat(new_slots).to(device),
            decode_rows=torch.tensor(decode_rows, dtype=torch.int64).to(device),
            decode_blocks=padded.to(device),
            decode_mask=(places < lengths.unsqueeze(1)).to(device),
            chunks=tuple(chunks),
        )


def paged(q: Tensor, k: Tensor, v: Tensor, cache: PagedCache, layout: StepLayout) -> Tensor:
    """Cache the step's keys and values, then attend causally to each sequence's own past.

    Args:
        q: [T, H, D]. k, v: [T, K, D].

    Returns:
        [T, H, D]
    """
    cache.write(layout.slots, k, v)
    attended = torch.empty_like(q)
    if len(layout.decode_rows):
        attended[layout.decode_rows] = _decode(q[layout.decode_rows], cache, layout)
    for chunk in layout.chunks:
        attended[chunk.first : chunk.last] = _prefill(q[chunk.first : chunk.last], cache, chunk)
    return attended


def _decode(q: Tensor, cache: PagedCache, layout: StepLayout) -> Tensor:
    """One token each of N sequences, q [N, H, D], against all their blocks."""
    n, length = layout.decode_mask.shape
    keys, values = (
        stored.view(n, length, *stored.shape[1:])
        for stored in cache.read(layout.decode_blocks.flatten())
    )
    kv_heads, head_dim = keys.shape[2:]
    # The query heads of one key head stand where a chunk has its tokens: keys are read once.
    grouped = F.scaled_dot_product_attention(
        q.view(n, kv_heads, -1, head_dim),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=layout.decode_mask.view(n, 1, 1, length),
    )
    return grouped.reshape(q.shape)


def _prefill(q: Tensor, cache: PagedCache, chunk: Chunk) -> Tensor:
    """The last tokens of one sequence, q [C, H, D], each against all up to itself."""
    keys, values = (stored[: chunk.length] for stored in cache.read(chunk.blocks))
    count, length = len(q), chunk.length
    whole = count == length
    return F.scaled_dot_product_attention(
        q.transpose(0, 1).unsqueeze(0),
        keys.transpose(0, 1).unsqueeze(0),
        values.transpose(0, 1).unsqueeze(0),
        attn_mask=None if whole else causal_mask(count, length, q.device),
        is_causal=whole,
        enable_gqa=True,
    )[0].transpose(0, 1)


def causal_mask(count: int, length: int, device: torch.device) -> Tensor:
    """[count, length], true where the last ``count`` of ``length`` positions may look.

    >>> causal_mask(2, 4, torch.device("cpu")).int().tolist()
    [[1, 1, 1, 0], [1, 1, 1, 1]]
    """
    return torch.ones(count, length, dtype=torch.bool, device=device).tril(length - count)


def block_diagonal(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    """Full attention within each of several packed pictures, none between them.

    One product per picture: a mask over all of them would grow with the square of their sum.

    Args:
        q, k, v: [T, H, D]. lengths: patches per picture, T in sum.
    """
    pictures = zip(*(torch.split(x, list(lengths)) for x in (q, k, v)), strict=True)
    attended = [
        F.scaled_dot_product_attention(*(x.transpose(0, 1).unsqueeze(0) for x in picture))[0]
        for picture in pictures
    ]
    return torch.cat(attended, dim=1).transpose(0, 1)


def contiguous(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of one sequence, written out: the reference for every faster path.

    Args:
        q: [C, H, D], the last C of L positions. k, v: [L, K, D].
    """
    repeats = q.shape[1] // k.shape[1]
    keys, values = k.repeat_interleave(repeats, dim=1), v.repeat_interleave(repeats, dim=1)
    scores = torch.einsum("chd,lhd->hcl", q.float(), keys.float()) * q.shape[-1] ** -0.5
    scores = scores.masked_fill(~causal_mask(len(q), len(k), q.device), float("-inf"))
    return torch.einsum("hcl,lhd->chd", scores.softmax(-1), values.float()).to(q.dtype)
