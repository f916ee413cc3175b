"""Decode steps replayed as CUDA graphs: one launch for a whole step instead of a thousand.

A graph is fixed to its shapes and addresses. So a decode step is copied into buffers of the next
larger shape, its last sequence repeated to fill them: the copies write the keys and values that
the original writes, and their logits are dropped. A shape is captured when it is first met.

Not yet run on a GPU: what fills the buffers is tested on the CPU, the capture is not.

Shapes: N sequences, B blocks of the longest of them, both rounded up to a power of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from shards.attention import Decode, PagedCache, StepLayout
from shards.text_model import Decoder


@dataclass(frozen=True, slots=True)
class Buffers:
    """A decode step at fixed addresses: token ids [N] and its layout."""

    token_ids: Tensor
    layout: StepLayout

    @classmethod
    def empty(cls, sequences: int, blocks: int, block_size: int, device: torch.device) -> Buffers:
        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        decode = Decode(
            rows=torch.arange(sequences, device=device),
            blocks=whole(sequences, blocks),
            # Never wholly false: a softmax over nothing is not a number.
            mask=torch.ones(sequences, blocks * block_size, dtype=torch.bool, device=device),
        )
        layout = StepLayout(whole(sequences), whole(sequences), (), block_size, fixed=decode)
        return cls(whole(sequences), layout)

    def fill(self, token_ids: Tensor, step: StepLayout) -> None:
        """Copy a step of at most N sequences and B blocks, its last sequence repeated."""
        mine, other = self.layout.decode, step.decode
        for to, source in (
            (self.token_ids, token_ids),
            (self.layout.positions, step.positions),
            (self.layout.slots, step.slots),
            (mine.blocks[:, : other.blocks.shape[1]], other.blocks),
            (mine.mask[:, : other.mask.shape[1]], other.mask),
        ):
            to[: len(source)] = source
            to[len(source) :] = source[-1]
        mine.blocks[:, other.blocks.shape[1] :] = 0
        mine.mask[:, other.mask.shape[1] :] = False


@dataclass(frozen=True, slots=True)
class _Captured:
    buffers: Buffers
    graph: torch.cuda.CUDAGraph
    logits: Tensor


class DecodeGraphs:
    """The decode steps of one rank's model. Ranks meet shapes in the same order, so they capture
    together.

    Args:
        most_sequences, most_blocks: larger steps are not covered; each shape holds memory.
    """

    def __init__(
        self,
        model: Decoder,
        caches: Sequence[PagedCache],
        *,
        most_sequences: int = 64,
        most_blocks: int = 512,
    ) -> None:
        self._model = model
        self._caches = caches
        self._most = (most_sequences, most_blocks)
        self._captured: dict[tuple[int, int], _Captured] = {}

    def covers(self, layout: StepLayout) -> bool:
        """Whether every sequence of the step computes one token, and the step is small enough."""
        spans = layout.spans
        return (
            bool(spans)
            and all(span.count == 1 for span in spans)
            and len(spans) <= self._most[0]
            and max(len(span.blocks) for span in spans) <= self._most[1]
        )

    def logits(self, token_ids: Tensor, layout: StepLayout) -> Tensor:
        """This rank's logits [N, vocabulary / ranks] of a step that is covered; valid until the
        next call.
        """
        shape = (_bucket(len(layout.spans)), _bucket(layout.decode.blocks.shape[1]))
        if shape not in self._captured:
            buffers = Buffers.empty(*shape, layout.block_size, layout.slots.device)
            buffers.fill(token_ids, layout)
            self._captured[shape] = self._capture(buffers)
        captured = self._captured[shape]
        captured.buffers.fill(token_ids, layout)
        captured.graph.replay()
        return captured.logits[: len(layout.spans)]

    @cached_property
    def _pool(self) -> Any:
        """Memory that all graphs work in, as one runs at a time and reads nothing of another's."""
        return torch.cuda.graph_pool_handle()

    def _capture(self, buffers: Buffers) -> _Captured:
        # Once uncaptured, on a stream of its own: libraries allocate at their first call.
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            decode_logits(self._model, buffers, self._caches)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            logits = decode_logits(self._model, buffers, self._caches)
        return _Captured(buffers, graph, logits)


def decode_logits(model: Decoder, buffers: Buffers, caches: Sequence[PagedCache]) -> Tensor:
    """What a graph holds: logits [N, vocabulary / ranks] of the step in ``buffers``."""
    no_patches = buffers.token_ids[:0]
    hidden = model.embed(buffers.token_ids, no_patches, None)
    return model.head(model(hidden, buffers.layout, caches))


def _bucket(count: int) -> int:
    """The next power of two.

    >>> [_bucket(count) for count in (1, 2, 3, 8, 9)]
    [1, 2, 4, 8, 16]
    """
    return 1 << (count - 1).bit_length()
