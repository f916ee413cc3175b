"""What computes while training: the reference's arithmetic with products of batches.

Pictures of a batch are of one size and sequences of one length, so attention is one product of
four axes where serving has ragged spans. ``tests/nano`` holds both to the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, the field's name for it

from shards.attention import PagedCache, StepLayout
from shards.comm import SingleRank
from shards.kernels import Heads, Kernels
from shards.layers import Placement
from shards.rotary import Rotation


class TrainingKernels(Kernels):
    """Differentiable, and quick on a CPU in mixed precision.

    What is element by element is compiled into one loop; products are the library's.
    """

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # Of the residual (float32) comes the input of a product; what comes out of one (only the
        # patches' embedding) becomes the residual.
        narrow = torch.is_autocast_enabled("cpu") and x.dtype is torch.float32
        return _compiled_norm()(x, weight, eps, torch.bfloat16 if narrow else torch.float32)

    def gated(self, gate_up: Tensor) -> Tensor:
        return _compiled_gate()(gate_up)

    def attend_paged(
        self,
        qkv: Tensor,
        heads: Heads,
        rotation: Rotation,
        cache: PagedCache | None,
        layout: StepLayout,
    ) -> Tensor:
        if cache is not None or len({span.count for span in layout.spans}) > 1:
            return super().attend_paged(qkv, heads, rotation, cache, layout)
        return _batched(qkv, heads, rotation, len(layout.spans), causal=True)

    def attend_packed(
        self, qkv: Tensor, heads: Heads, rotation: Rotation, lengths: Sequence[int]
    ) -> Tensor:
        if len(set(lengths)) > 1:
            return super().attend_packed(qkv, heads, rotation, lengths)
        return _batched(qkv, heads, rotation, len(lengths), causal=False)


@cache
def _compiled_norm() -> Callable[[Tensor, Tensor, float, torch.dtype], Tensor]:
    def norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        exact = x.float()
        exact = exact * torch.rsqrt(exact.square().mean(-1, keepdim=True) + eps)
        return (exact * weight).to(dtype)

    return torch.compile(norm, dynamic=True)


@cache
def _compiled_gate() -> Callable[[Tensor], Tensor]:
    return torch.compile(Kernels().gated, dynamic=True)


@cache
def _compiled_turn() -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return Rotation(cos, sin).apply(x.float())

    return torch.compile(turn, dynamic=True)


def _batched(qkv: Tensor, heads: Heads, rotation: Rotation, count: int, *, causal: bool) -> Tensor:
    q, k, v = heads.split(qkv)
    turn = _compiled_turn()
    q, k = (turn(x, rotation.cos, rotation.sin) for x in (q, k))
    q, k, v = (x.reshape(count, -1, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
    # Float32: on CPUs the fused kernel is slower in bfloat16, backward above all.
    with torch.autocast("cpu", enabled=False):
        attended = F.scaled_dot_product_attention(
            q, k, v.float(), is_causal=causal, enable_gqa=heads.query != heads.key
        )
    return attended.transpose(1, 2).reshape(len(qkv), -1)


@dataclass(frozen=True, slots=True)
class TrainingPlacement(Placement):
    """One process, float32 weights, kernels that have a backward pass."""

    @property
    def kernels(self) -> Kernels:
        return TrainingKernels()


def placement() -> TrainingPlacement:
    return TrainingPlacement(SingleRank(), torch.device("cpu"), torch.float32, "torch")


@torch.no_grad()
def initialise(model: nn.Module, layers: int, generator: torch.Generator) -> None:
    """Weights to start from: outputs as large as inputs, what is added to the residual smaller."""
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.fill_(0.0 if name.endswith("bias") else 1.0)
            continue
        size = weight.shape[1] ** -0.5
        if "embeddings" in name:
            size = 0.5
        elif name.endswith(("wo.weight", "w2.weight")):
            size *= (2 * layers) ** -0.5
        weight.normal_(0.0, size, generator=generator)
    model.requires_grad_(True)
