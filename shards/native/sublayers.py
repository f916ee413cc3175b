"""The C++ sublayers: one call each, with all that outlasts a step looked up before."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from shards.attention import PagedCache, StepLayout, packed_spans
from shards.kernels import (
    AttentionSublayer,
    AttentionWeights,
    FeedForwardSublayer,
    FeedForwardWeights,
    Kernels,
)
from shards.rotary import Rotation

Argument = ctypes.c_void_p | ctypes.c_int64 | ctypes.c_float
_POINTER, _COUNT, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
SIGNATURES: dict[str, tuple[type[Argument], ...]] = {
    "attention_sublayer": (*[_POINTER] * 6, *[_COUNT] * 2, *[_POINTER] * 5, *[_COUNT] * 2),
    "feed_forward_sublayer": (*[_POINTER] * 4, *[_COUNT] * 2),
}


class _Attention(ctypes.Structure):
    """``AttentionWeights`` of sublayers.cpp."""

    _fields_ = (
        *((name, _POINTER) for name in ("norm", "wqkv", "wo")),
        *((name, _COUNT) for name in ("width", "heads", "kv_heads", "dim")),
        ("eps", _REAL),
    )


class _FeedForward(ctypes.Structure):
    """``FeedForwardWeights`` of sublayers.cpp."""

    _fields_ = (
        *((name, _POINTER) for name in ("norm", "w13", "w2")),
        *((name, _COUNT) for name in ("width", "hidden")),
        ("eps", _REAL),
    )


class NativeAttention(AttentionSublayer):
    """Weights and activations are float32 on the CPU."""

    def __init__(self, kernels: Kernels, weights: AttentionWeights, lib: ctypes.CDLL) -> None:
        super().__init__(kernels, weights)
        heads = weights.heads
        self._call = lib.attention_sublayer
        self._weights = _Attention(
            weights.norm.data_ptr(),
            weights.wqkv.data_ptr(),
            weights.wo.data_ptr(),
            len(weights.wo),
            heads.query,
            heads.key,
            heads.dim,
            weights.eps,
        )
        self._address = ctypes.addressof(self._weights)

    def paged(
        self,
        hidden: Tensor,
        addend: Tensor | None,
        rotation: Rotation,
        cache: PagedCache | None,
        layout: StepLayout,
    ) -> tuple[Tensor, Tensor]:
        if cache is None:
            return super().paged(hidden, addend, rotation, cache, layout)
        spans, tables = layout.native
        out = torch.empty_like(hidden)
        self._call(
            self._address,
            rotation.cos.data_ptr(),
            rotation.sin.data_ptr(),
            layout.slots.data_ptr(),
            tables.data_ptr(),
            spans.data_ptr(),
            len(layout.spans),
            layout.block_size,
            cache.keys.data_ptr(),
            cache.values.data_ptr(),
            hidden.data_ptr(),
            None if addend is None else addend.data_ptr(),
            out.data_ptr(),
            hidden.shape[0],
            torch.get_num_threads(),
        )
        return hidden, out

    def packed(
        self, hidden: Tensor, addend: Tensor | None, rotation: Rotation, lengths: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        spans = packed_spans(lengths)
        out = torch.empty_like(hidden)
        self._call(
            self._address,
            rotation.cos.data_ptr(),
            rotation.sin.data_ptr(),
            None,
            None,
            spans.data_ptr(),
            len(lengths),
            1,
            None,
            None,
            hidden.data_ptr(),
            None if addend is None else addend.data_ptr(),
            out.data_ptr(),
            hidden.shape[0],
            torch.get_num_threads(),
        )
        return hidden, out


class NativeFeedForward(FeedForwardSublayer):
    """Weights and activations are float32 on the CPU."""

    def __init__(self, kernels: Kernels, weights: FeedForwardWeights, lib: ctypes.CDLL) -> None:
        super().__init__(kernels, weights)
        self._call = lib.feed_forward_sublayer
        width, hidden = weights.w2.shape
        self._weights = _FeedForward(
            weights.norm.data_ptr(),
            weights.w13.data_ptr(),
            weights.w2.data_ptr(),
            width,
            hidden,
            weights.eps,
        )
        self._address = ctypes.addressof(self._weights)

    def __call__(self, hidden: Tensor, addend: Tensor | None) -> tuple[Tensor, Tensor]:
        out = torch.empty_like(hidden)
        self._call(
            self._address,
            hidden.data_ptr(),
            None if addend is None else addend.data_ptr(),
            out.data_ptr(),
            hidden.shape[0],
            torch.get_num_threads(),
        )
        return hidden, out
