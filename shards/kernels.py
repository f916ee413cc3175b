"""What a layer computes between its all-reduces, in plain torch: the reference.

A layer is two sublayers, attention and feed-forward, each made of the operations of ``Kernels``.
``shards.native`` has both for float32 on the CPU; whatever it does not cover comes here.

Shapes: T tokens, H query heads, K key/value heads, D channels per head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, the field's name for it

from shards.attention import PagedCache, StepLayout, block_diagonal, paged, uncached
from shards.rotary import Rotation

KernelsName = Literal["auto", "torch", "native"]


@dataclass(frozen=True, slots=True)
class Heads:
    """How queries, keys and values stand side by side in one projection [T, width]."""

    query: int
    key: int
    dim: int

    @property
    def width(self) -> int:
        return (self.query + 2 * self.key) * self.dim

    def split(self, qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[T, width] -> q [T, H, D], k and v [T, K, D]; views."""
        heads = qkv.view(len(qkv), -1, self.dim)
        q, k, v = torch.split(heads, [self.query, self.key, self.key], dim=1)
        return q, k, v


@dataclass(frozen=True, slots=True)
class AttentionWeights:
    """This rank's part of an attention sublayer; tensors that keep their memory.

    Attributes:
        norm: [width]. eps: of the norm.
        wqkv: [heads.width, width]. wo: [width, H * D].
    """

    norm: Tensor
    eps: float
    wqkv: Tensor
    wo: Tensor
    heads: Heads


@dataclass(frozen=True, slots=True)
class FeedForwardWeights:
    """This rank's part of a feed-forward sublayer; tensors that keep their memory.

    Attributes:
        norm: [width]. eps: of the norm.
        w13: [2 * hidden, width], gate above up. w2: [width, hidden].
    """

    norm: Tensor
    eps: float
    w13: Tensor
    w2: Tensor


class Kernels:
    """Plain torch, for any device and dtype. Inputs may be overwritten only where that is said."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """[T, in], [out, in] -> [T, out]."""
        return F.linear(x, weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """x / rms(x) * weight over the last axis, with float32 statistics."""
        exact = x.float()
        exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
        return exact.to(x.dtype) * weight

    def gated(self, gate_up: Tensor) -> Tensor:
        """[T, 2 * width], gate beside up -> silu(gate) * up."""
        gate, up = gate_up.chunk(2, dim=-1)
        return F.silu(gate) * up

    def attend_paged(
        self,
        qkv: Tensor,
        heads: Heads,
        rotation: Rotation,
        cache: PagedCache | None,
        layout: StepLayout,
    ) -> Tensor:
        """Rotate, cache the step's keys and values, attend causally to each sequence's past.

        Args:
            qkv: [T, heads.width]; may be overwritten.
            cache: None where the layout is of whole sequences and nothing is kept.

        Returns:
            [T, H * D]
        """
        q, k, v = heads.split(qkv)
        if cache is None:
            return uncached(rotation.apply(q), rotation.apply(k), v, layout).flatten(1)
        return paged(rotation.apply(q), rotation.apply(k), v, cache, layout).flatten(1)

    def attend_packed(
        self, qkv: Tensor, heads: Heads, rotation: Rotation, lengths: Sequence[int]
    ) -> Tensor:
        """Rotate, attend fully within each of several packed pictures.

        Args:
            qkv: [T, heads.width], H = K; may be overwritten. lengths: T in sum.

        Returns:
            [T, H * D]
        """
        q, k, v = heads.split(qkv)
        return block_diagonal(rotation.apply(q), rotation.apply(k), v, lengths).flatten(1)

    def attention(self, weights: AttentionWeights) -> AttentionSublayer:
        return AttentionSublayer(self, weights)

    def feed_forward(self, weights: FeedForwardWeights) -> FeedForwardSublayer:
        return FeedForwardSublayer(self, weights)


class AttentionSublayer:
    """wo(attend(wqkv(norm(hidden)))): a summand, which the ranks are still to add up.

    Both methods first add ``addend`` [T, width], what the sublayer before made of all ranks (None
    for nothing), to ``hidden`` [T, width], which may be overwritten; they return what came of that,
    and the summand.
    """

    def __init__(self, kernels: Kernels, weights: AttentionWeights) -> None:
        self.kernels = kernels
        self.weights = weights

    def paged(
        self,
        hidden: Tensor,
        addend: Tensor | None,
        rotation: Rotation,
        cache: PagedCache | None,
        layout: StepLayout,
    ) -> tuple[Tensor, Tensor]:
        """See ``Kernels.attend_paged``."""
        kernels, weights = self.kernels, self.weights
        hidden = _added(hidden, addend)
        qkv = kernels.linear(kernels.rms_norm(hidden, weights.norm, weights.eps), weights.wqkv)
        attended = kernels.attend_paged(qkv, weights.heads, rotation, cache, layout)
        return hidden, kernels.linear(attended, weights.wo)

    def packed(
        self, hidden: Tensor, addend: Tensor | None, rotation: Rotation, lengths: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """See ``Kernels.attend_packed``."""
        kernels, weights = self.kernels, self.weights
        hidden = _added(hidden, addend)
        qkv = kernels.linear(kernels.rms_norm(hidden, weights.norm, weights.eps), weights.wqkv)
        attended = kernels.attend_packed(qkv, weights.heads, rotation, lengths)
        return hidden, kernels.linear(attended, weights.wo)


class FeedForwardSublayer:
    """w2(silu(w1 n) * w3 n) of n = norm(hidden): a summand, as that of ``AttentionSublayer``."""

    def __init__(self, kernels: Kernels, weights: FeedForwardWeights) -> None:
        self.kernels = kernels
        self.weights = weights

    def __call__(self, hidden: Tensor, addend: Tensor | None) -> tuple[Tensor, Tensor]:
        kernels, weights = self.kernels, self.weights
        hidden = _added(hidden, addend)
        gate_up = kernels.linear(kernels.rms_norm(hidden, weights.norm, weights.eps), weights.w13)
        return hidden, kernels.linear(kernels.gated(gate_up), weights.w2)


def _added(hidden: Tensor, addend: Tensor | None) -> Tensor:
    return hidden if addend is None else hidden + addend
