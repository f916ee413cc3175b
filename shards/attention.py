"""Attention: causal over a paged KV cache, block-diagonal over packed pictures.

Shapes: T tokens of a step, H query heads, K key/value heads (H a multiple of K), D channels per
head. A slot is a token's place in the cache: block id * block size + offset.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, the field's name for it

from shards.host_memory import on_large_pages


class Item(Protocol):
    """What a step computes of one sequence.

    Attributes:
        token_ids: computed in this step; at least one.
        start: position of the first of them; everything before is in the KV cache.
        block_table: ids of the blocks that hold the positions up to the last of them, or more.
    """

    @property
    def token_ids(self) -> Sequence[int]: ...
    @property
    def start(self) -> int: ...
    @property
    def block_table(self) -> Sequence[int]: ...


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
            on_large_pages(torch.zeros(shape, device=device, dtype=dtype)),
            on_large_pages(torch.zeros(shape, device=device, dtype=dtype)),
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
class Span:
    """One sequence's part of a step: its rows, and what they look at.

    Attributes:
        first: step row of its first token.
        count: tokens it computes.
        length: positions of the sequence up to and with the last of them.
        blocks: ids of the blocks that hold those positions.
    """

    first: int
    count: int
    length: int
    blocks: tuple[int, ...]


@dataclass(frozen=True)
class StepLayout:
    """Where a step's tokens stand in their sequences and in the cache; the same for all layers.

    Attributes:
        positions: [T] in the sequence.
        slots: [T] where each token's key and value go.
        spans: the sequences in turn.
        fixed: the decoding sequences at addresses that last, where a CUDA graph reads them.
    """

    positions: Tensor
    slots: Tensor
    spans: tuple[Span, ...]
    block_size: int
    fixed: Decode | None = None

    @classmethod
    def of(cls, items: Sequence[Item], block_size: int, device: torch.device) -> StepLayout:
        """Lay out a step; every index is computed once here, on the host, for all layers."""
        positions: list[int] = []
        slots: list[int] = []
        spans = []
        for item in items:
            first, count, table = len(positions), len(item.token_ids), item.block_table
            stop = item.start + count
            positions.extend(range(item.start, stop))
            slots.extend(
                table[position // block_size] * block_size + position % block_size
                for position in range(item.start, stop)
            )
            # A table may already hold blocks for tokens to come.
            spans.append(Span(first, count, stop, tuple(table[: -(-stop // block_size)])))
        return cls(
            torch.tensor(positions, dtype=torch.int64).to(device),
            torch.tensor(slots, dtype=torch.int64).to(device),
            tuple(spans),
            block_size,
        )

    @classmethod
    def uncached(cls, lengths: Sequence[int], device: torch.device) -> StepLayout:
        """Whole sequences, packed, that leave nothing in a cache: what training computes."""
        positions = [torch.arange(length, device=device) for length in lengths]
        firsts = itertools.accumulate(lengths, initial=0)
        spans = tuple(
            Span(first, length, length, ()) for first, length in zip(firsts, lengths, strict=False)
        )
        nowhere = torch.empty(0, dtype=torch.int64, device=device)
        return cls(torch.cat(positions), nowhere, spans, block_size=1)

    @cached_property
    def native(self) -> tuple[Tensor, Tensor]:
        """What the CPU kernel reads: [sequences, 4] (first, count, length, where its blocks begin),
        and all blocks one after the other.
        """
        tables: list[int] = []
        rows = []
        for span in self.spans:
            rows.append((span.first, span.count, span.length, len(tables)))
            tables.extend(span.blocks)
        return torch.tensor(rows, dtype=torch.int64), torch.tensor(tables, dtype=torch.int64)

    @cached_property
    def decode(self) -> Decode:
        """The sequences that compute one token."""
        if self.fixed is not None:
            return self.fixed
        return Decode.of(
            [span for span in self.spans if span.count == 1], self.block_size, self.slots.device
        )

    @cached_property
    def chunks(self) -> tuple[tuple[Span, Tensor], ...]:
        """The other sequences, each with its blocks."""
        return tuple(
            (span, torch.tensor(span.blocks).to(self.slots.device))
            for span in self.spans
            if span.count > 1
        )


@dataclass(frozen=True, slots=True)
class Decode:
    """N sequences that compute one token each.

    Attributes:
        rows: [N] of the step.
        blocks: [N, B], padded to the longest.
        mask: [N, B * block_size] true where a token of the sequence stands.
    """

    rows: Tensor
    blocks: Tensor
    mask: Tensor

    @classmethod
    def of(cls, spans: Sequence[Span], block_size: int, device: torch.device) -> Decode:
        most = max((len(span.blocks) for span in spans), default=0)
        blocks = [(*span.blocks, *[0] * (most - len(span.blocks))) for span in spans]
        lengths = torch.tensor([span.length for span in spans], dtype=torch.int64)
        mask = torch.arange(most * block_size) < lengths.unsqueeze(1)
        return cls(
            torch.tensor([span.first for span in spans], dtype=torch.int64).to(device),
            torch.tensor(blocks, dtype=torch.int64).view(len(spans), most).to(device),
            mask.to(device),
        )


def packed_spans(lengths: Sequence[int]) -> Tensor:
    """``StepLayout.native`` of pictures packed one after the other: [pictures, 4].

    >>> packed_spans([6, 2]).tolist()
    [[0, 6, 6, -1], [6, 2, 2, -1]]
    """
    stops = itertools.accumulate(lengths)
    return torch.tensor(
        [(stop - length, length, length, -1) for length, stop in zip(lengths, stops, strict=True)],
        dtype=torch.int64,
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
    if len(layout.decode.rows):
        attended[layout.decode.rows] = _decode(q[layout.decode.rows], cache, layout.decode)
    for span, blocks in layout.chunks:
        rows = slice(span.first, span.first + span.count)
        keys, values = (stored[: span.length] for stored in cache.read(blocks))
        attended[rows] = _prefill(q[rows], keys, values)
    return attended


def uncached(q: Tensor, k: Tensor, v: Tensor, layout: StepLayout) -> Tensor:
    """Causal attention within each of the layout's whole sequences; shapes as ``paged``."""
    counts = [span.count for span in layout.spans]
    sequences = zip(*(torch.split(x, counts) for x in (q, k, v)), strict=True)
    return torch.cat([_prefill(*sequence) for sequence in sequences])


def _decode(q: Tensor, cache: PagedCache, decode: Decode) -> Tensor:
    """One token each of N sequences, q [N, H, D], against all their blocks."""
    n, length = decode.mask.shape
    keys, values = (
        stored.view(n, length, *stored.shape[1:]) for stored in cache.read(decode.blocks.flatten())
    )
    kv_heads, head_dim = keys.shape[2:]
    # The query heads of one key head stand where a chunk has its tokens: keys are read once.
    grouped = F.scaled_dot_product_attention(
        q.view(n, kv_heads, -1, head_dim),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=decode.mask.view(n, 1, 1, length),
    )
    return grouped.reshape(q.shape)


def _prefill(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """The last tokens of one sequence, q [C, H, D], each against all up to itself [L, K, D]."""
    count, length = len(q), len(keys)
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
