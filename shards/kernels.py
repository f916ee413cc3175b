"""The steps between which a layer's arithmetic is written, in plain torch: the reference.

``shards.native`` has the same for float32 on the CPU; whatever it does not cover comes here.

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
