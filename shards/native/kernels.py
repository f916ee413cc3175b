"""The C++ kernels behind the reference's methods: float32 on the CPU.

A row's result never depends on the rows beside it, nor on how its sequence was cut into steps:
alone, in a batch, prefilled whole or in chunks, the bits are the same.
"""

from __future__ import annotations

import ctypes
import functools
import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from shards.attention import PagedCache, StepLayout, packed_spans
from shards.errors import KernelError
from shards.kernels import (
    AttentionSublayer,
    AttentionWeights,
    FeedForwardSublayer,
    FeedForwardWeights,
    Heads,
    Kernels,
    KernelsName,
)
from shards.native.build import cache_folder, library
from shards.native.sublayers import (
    SIGNATURES,
    Argument,
    NativeAttention,
    NativeFeedForward,
)
from shards.rotary import Rotation

# Query heads per key head that the attention kernel lays side by side at most.
_MOST_GROUPED = 128
_POINTER, _COUNT, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, tuple[type[Argument], ...]] = {
    "linear": (*[_POINTER] * 4, *[_COUNT] * 4),
    "rms_norm": (*[_POINTER] * 4, *[_COUNT] * 2, _REAL, _COUNT),
    "gated": (*[_POINTER] * 2, *[_COUNT] * 3),
    "rotate": (*[_POINTER] * 6, *[_COUNT] * 5),
    "attention": (
        *(_POINTER, _COUNT, _POINTER, _POINTER, _COUNT, _POINTER, _COUNT, _POINTER, _COUNT),
        *(_COUNT, _COUNT, _COUNT, _COUNT, _POINTER, _COUNT),
    ),
    **SIGNATURES,
}


class NativeKernels(Kernels):
    """Calls into the library; tensors that are not float32 on the CPU go to the reference."""

    def __init__(self, lib: ctypes.CDLL) -> None:
        for name, arguments in _SIGNATURES.items():
            function = getattr(lib, name)
            function.argtypes = arguments
            function.restype = None
        self._lib = lib

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not _covered(x, weight):
            return super().linear(x, weight, bias)
        x = x.contiguous()
        outputs, inputs = weight.shape
        y = x.new_empty((len(x), outputs))
        self._lib.linear(
            x.data_ptr(),
            weight.data_ptr(),
            None if bias is None else bias.data_ptr(),
            y.data_ptr(),
            len(x),
            inputs,
            outputs,
            torch.get_num_threads(),
        )
        return y

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        if not _covered(x, weight):
            return super().rms_norm(x, weight, eps)
        x = x.contiguous()
        y = torch.empty_like(x)
        rows, width = x.shape
        self._lib.rms_norm(
            x.data_ptr(),
            None,
            weight.data_ptr(),
            y.data_ptr(),
            rows,
            width,
            eps,
            torch.get_num_threads(),
        )
        return y

    def gated(self, gate_up: Tensor) -> Tensor:
        if not _covered(gate_up):
            return super().gated(gate_up)
        gate_up = gate_up.contiguous()
        rows, width = len(gate_up), gate_up.shape[1] // 2
        y = gate_up.new_empty((rows, width))
        self._lib.gated(gate_up.data_ptr(), y.data_ptr(), rows, width, torch.get_num_threads())
        return y

    def attend_paged(
        self,
        qkv: Tensor,
        heads: Heads,
        rotation: Rotation,
        cache: PagedCache | None,
        layout: StepLayout,
    ) -> Tensor:
        covered = cache is not None and _covered(qkv, cache.keys)
        if cache is None or not covered or not _groups(heads):
            return super().attend_paged(qkv, heads, rotation, cache, layout)
        qkv = qkv.contiguous()
        self._rotate(qkv, heads, rotation, layout.slots, cache)
        spans, tables = layout.native
        return self._attend(
            qkv,
            heads,
            (cache.keys.data_ptr(), cache.values.data_ptr(), heads.key * heads.dim),
            (tables.data_ptr(), layout.block_size),
            spans,
            causal=True,
        )

    def attend_packed(
        self, qkv: Tensor, heads: Heads, rotation: Rotation, lengths: Sequence[int]
    ) -> Tensor:
        if not _covered(qkv) or not _groups(heads):
            return super().attend_packed(qkv, heads, rotation, lengths)
        qkv = qkv.contiguous()
        self._rotate(qkv, heads, rotation, None, None)
        keys = qkv.data_ptr() + heads.query * heads.dim * qkv.itemsize
        values = keys + heads.key * heads.dim * qkv.itemsize
        return self._attend(
            qkv,
            heads,
            (keys, values, heads.width),
            (None, 1),
            packed_spans(lengths),
            causal=False,
        )

    def attention(self, weights: AttentionWeights) -> AttentionSublayer:
        heads = weights.heads
        if not _covered(weights.norm, weights.wqkv, weights.wo) or not _groups(heads):
            return super().attention(weights)
        return NativeAttention(self, weights, self._lib)

    def feed_forward(self, weights: FeedForwardWeights) -> FeedForwardSublayer:
        if not _covered(weights.norm, weights.w13, weights.w2):
            return super().feed_forward(weights)
        return NativeFeedForward(self, weights, self._lib)

    def _rotate(
        self,
        qkv: Tensor,
        heads: Heads,
        rotation: Rotation,
        slots: Tensor | None,
        cache: PagedCache | None,
    ) -> None:
        self._lib.rotate(
            qkv.data_ptr(),
            rotation.cos.data_ptr(),
            rotation.sin.data_ptr(),
            None if slots is None else slots.data_ptr(),
            None if cache is None else cache.keys.data_ptr(),
            None if cache is None else cache.values.data_ptr(),
            len(qkv),
            heads.query,
            heads.key,
            heads.dim,
            torch.get_num_threads(),
        )

    def _attend(
        self,
        qkv: Tensor,
        heads: Heads,
        stored: tuple[int, int, int],
        blocks: tuple[int | None, int],
        spans: Tensor,
        *,
        causal: bool,
    ) -> Tensor:
        """``stored``: keys, values, floats from one position to the next; see attention.cpp."""
        attended = qkv.new_empty((len(qkv), heads.query * heads.dim))
        self._lib.attention(
            qkv.data_ptr(),
            heads.width,
            *stored,
            *blocks,
            spans.data_ptr(),
            len(spans),
            heads.query,
            heads.key,
            heads.dim,
            causal,
            attended.data_ptr(),
            torch.get_num_threads(),
        )
        return attended


@functools.cache
def kernels_for(name: KernelsName, device: torch.device, dtype: torch.dtype) -> Kernels:
    """The kernels that compute ``dtype`` on ``device``; ``auto`` is native where that can be had.

    Raises:
        KernelError: ``native`` was asked for and cannot be had.
    """
    covered = device.type == "cpu" and dtype is torch.float32
    if name == "torch" or (name == "auto" and not covered):
        return Kernels()
    if not covered:
        raise KernelError(f"native kernels compute float32 on the CPU, not {dtype} on {device}")
    try:
        return NativeKernels(_loaded())
    except KernelError as error:
        if name == "native":
            raise
        logging.getLogger(__name__).warning("native kernels are not used: %s", error)
        return Kernels()


def _loaded() -> ctypes.CDLL:
    path = library(cache_folder())
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"{path} does not load: {error}") from error


def _covered(*tensors: Tensor) -> bool:
    return all(x.dtype is torch.float32 and x.device.type == "cpu" for x in tensors)


def _groups(heads: Heads) -> bool:
    return heads.query <= _MOST_GROUPED * heads.key
