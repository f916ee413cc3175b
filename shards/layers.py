"""Linear layers, norms and tables, each cut over the ranks of a tensor-parallel group.

Every layer says, beside its arithmetic, which checkpoint tensors it is made of and which part of
each this rank holds (``parts``). The checkpoint reader knows no more than that; layers know
nothing of files.

    column-parallel   rows of the matrix [out, in] are cut: each rank makes some of the outputs
    row-parallel      columns are cut: each rank makes a summand of every output, then all-reduce

Shapes: T tokens. A layer's checkpoint name is relative to the module that holds it, in Mistral's
vocabulary (``layers.3.attention`` holds ``wo``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, the field's name for it

from shards.comm import Communicator
from shards.host_memory import on_large_pages
from shards.kernels import AttentionWeights, FeedForwardWeights, Heads, Kernels, KernelsName
from shards.native.kernels import kernels_for

DtypeName = Literal["auto", "float32", "bfloat16"]


def compute_dtype(dtype: DtypeName | torch.dtype, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations; ``auto`` is bfloat16 on CUDA, float32 on CPU."""
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a rank's tensors live, what computes on them and whom the rank shares the work with."""

    comm: Communicator
    device: torch.device
    dtype: torch.dtype
    kernels_name: KernelsName = "auto"

    @property
    def kernels(self) -> Kernels:
        """What computes between the all-reduces."""
        return kernels_for(self.kernels_name, self.device, self.dtype)

    def weight(self, *shape: int) -> nn.Parameter:
        """An uninitialised weight: a checkpoint reader fills it."""
        empty = on_large_pages(torch.empty(shape, device=self.device, dtype=self.dtype))
        return nn.Parameter(empty, requires_grad=False)

    def share(self, width: int) -> int:
        """This rank's part of a width that the ranks divide."""
        return width // self.comm.size


@dataclass(frozen=True, slots=True)
class Part:
    """One checkpoint tensor, and where this rank's slice of it goes.

    Attributes:
        name: of the whole tensor.
        shape: of the whole tensor.
        target: the slice's place in memory; [all of it but ``axis``, cut to this rank].
        axis: the axis that is cut (0 or 1), or None where every rank holds the whole.
        start: first index of the slice along ``axis``.
        rotary_heads: above 0 where rows are rotated by RoPE: heads in the whole tensor.
    """

    name: str
    shape: tuple[int, ...]
    target: Tensor
    axis: int | None = None
    start: int = 0
    rotary_heads: int = 0


class Layer(nn.Module, ABC):
    """A leaf that owns weights."""

    @abstractmethod
    def parts(self) -> Iterator[Part]:
        """The checkpoint tensors of this layer, named relative to the module that holds it."""


def model_parts(model: nn.Module, root: str = "") -> Iterator[Part]:
    """Every checkpoint tensor of ``model`` by its full name, ``model`` itself being at ``root``."""
    for path, module in model.named_modules(prefix=root):
        if isinstance(module, Layer):
            parent = path.rpartition(".")[0]
            for part in module.parts():
                yield replace(part, name=f"{parent}.{part.name}" if parent else part.name)


class RMSNorm(Layer):
    """x / rms(x) * weight, with float32 statistics. Whole on every rank."""

    def __init__(self, name: str, width: int, eps: float, place: Placement) -> None:
        super().__init__()
        self.name = name
        self.eps = eps
        self.kernels = place.kernels
        self.weight = place.weight(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.rms_norm(x, self.weight, self.eps)

    def parts(self) -> Iterator[Part]:
        yield Part(f"{self.name}.weight", tuple(self.weight.shape), self.weight)


@dataclass(frozen=True, slots=True)
class Rows:
    """A matrix among those stacked in one column-parallel layer: its name and its whole height."""

    name: str
    height: int
    rotary_heads: int = 0


class ColumnParallel(Layer):
    """One or several stacked matrices, rows cut: [T, width] -> this rank's [T, sum of heights].

    Stacked matrices (q with k and v, gate with up) are one product, each cut on its own.
    """

    def __init__(
        self, stack: Sequence[Rows], width: int, place: Placement, bias: bool = False
    ) -> None:
        super().__init__()
        self.stack = tuple(stack)
        self.rank = place.comm.rank
        self.kernels = place.kernels
        self.heights = [place.share(rows.height) for rows in self.stack]
        self.weight = place.weight(sum(self.heights), width)
        self.bias = place.weight(sum(self.heights)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return self.kernels.linear(x, self.weight, self.bias)

    def parts(self) -> Iterator[Part]:
        tensors = {"weight": self.weight, "bias": self.bias}
        for suffix, tensor in tensors.items():
            if tensor is None:
                continue
            for rows, target in zip(self.stack, torch.split(tensor, self.heights), strict=True):
                yield Part(
                    name=f"{rows.name}.{suffix}",
                    shape=(rows.height, *tensor.shape[1:]),
                    target=target,
                    axis=0,
                    start=self.rank * len(target),
                    rotary_heads=rows.rotary_heads,
                )


class RowParallel(Layer):
    """A matrix with columns cut: this rank's [T, width / ranks] -> the whole [T, height].

    The bias is added after the sum, so it counts once.
    """

    def __init__(
        self, name: str, width: int, height: int, place: Placement, bias: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self.comm = place.comm
        self.kernels = place.kernels
        self.weight = place.weight(height, place.share(width))
        self.bias = place.weight(height) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        summed = self.comm.all_reduce(self.kernels.linear(x, self.weight))
        return summed if self.bias is None else summed + self.bias

    def parts(self) -> Iterator[Part]:
        height, share = self.weight.shape
        yield Part(
            name=f"{self.name}.weight",
            shape=(height, share * self.comm.size),
            target=self.weight,
            axis=1,
            start=self.comm.rank * share,
        )
        if self.bias is not None:
            yield Part(f"{self.name}.bias", (height,), self.bias)


class VocabularyEmbedding(Layer):
    """A table with rows (token ids) cut: ids [T] -> the whole [T, width]."""

    def __init__(self, name: str, vocab_size: int, width: int, place: Placement) -> None:
        super().__init__()
        self.name = name
        self.comm = place.comm
        self.weight = place.weight(place.share(vocab_size), width)
        self.first = place.comm.rank * len(self.weight)

    def forward(self, token_ids: Tensor) -> Tensor:
        local = token_ids - self.first
        elsewhere = (local < 0) | (local >= len(self.weight))
        rows = F.embedding(local.masked_fill(elsewhere, 0), self.weight)
        return self.comm.all_reduce(rows.masked_fill(elsewhere.unsqueeze(-1), 0))

    def parts(self) -> Iterator[Part]:
        rows, width = self.weight.shape
        yield Part(
            name=f"{self.name}.weight",
            shape=(rows * self.comm.size, width),
            target=self.weight,
            axis=0,
            start=self.first,
        )


class GatedFeedForward(nn.Module):
    """The matrices of w2(silu(w1 x) * w3 x)."""

    def __init__(self, width: int, hidden: int, place: Placement) -> None:
        super().__init__()
        self.w13 = ColumnParallel([Rows("w1", hidden), Rows("w3", hidden)], width, place)
        self.w2 = RowParallel("w2", hidden, width, place)


class HeadProjections(nn.Module):
    """The matrices around attention: queries, keys and values in, heads out; heads are cut.

    Attributes:
        heads: this rank's, and how they stand in the projection.
    """

    def __init__(
        self, width: int, heads: int, kv_heads: int, head_dim: int, place: Placement
    ) -> None:
        super().__init__()
        self.heads = Heads(place.share(heads), place.share(kv_heads), head_dim)
        self.wqkv = ColumnParallel(
            [
                Rows("wq", heads * head_dim, rotary_heads=heads),
                Rows("wk", kv_heads * head_dim, rotary_heads=kv_heads),
                Rows("wv", kv_heads * head_dim),
            ],
            width,
            place,
        )
        self.wo = RowParallel("wo", heads * head_dim, width, place)


class TransformerLayer(nn.Module):
    """Attention, then feed-forward, each added to what comes in; two all-reduces.

    Adding is left to the sublayer that follows, which passes over the rows anyway: a layer takes
    ``hidden`` [T, width] and what is yet to be added to it, and returns both as they are after it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        hidden: int,
        eps: float,
        place: Placement,
    ) -> None:
        super().__init__()
        self.comm = place.comm
        self.attention_norm = RMSNorm("attention_norm", width, eps, place)
        self.attention = HeadProjections(width, heads, kv_heads, head_dim, place)
        self.ffn_norm = RMSNorm("ffn_norm", width, eps, place)
        self.feed_forward = GatedFeedForward(width, hidden, place)
        self.attend = place.kernels.attention(
            AttentionWeights(
                self.attention_norm.weight,
                eps,
                self.attention.wqkv.weight,
                self.attention.wo.weight,
                self.attention.heads,
            )
        )
        self._feed = place.kernels.feed_forward(
            FeedForwardWeights(
                self.ffn_norm.weight, eps, self.feed_forward.w13.weight, self.feed_forward.w2.weight
            )
        )

    def feed(self, hidden: Tensor, attended: Tensor) -> tuple[Tensor, Tensor]:
        """The second half, of what ``attend`` returned."""
        hidden, summand = self._feed(hidden, self.comm.all_reduce(attended))
        return hidden, self.comm.all_reduce(summand)
