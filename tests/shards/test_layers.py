"""Each cut layer, summed or joined over pretended ranks, equals the whole matrix."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from shards.comm import SingleRank
from shards.layers import (
    ColumnParallel,
    GatedFeedForward,
    HeadProjections,
    Layer,
    Placement,
    RMSNorm,
    RowParallel,
    Rows,
    TransformerLayer,
    VocabularyEmbedding,
    compute_dtype,
    model_parts,
)
from shards.shared_memory import Reduction

CPU = torch.device("cpu")


class PretendedRank(SingleRank):
    """One rank whose all-reduces are recorded and left alone: a test adds the summands."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size
        self.reduced: list[Tensor] = []

    def all_reduce(self, tensor: Tensor, op: Reduction = "sum") -> Tensor:
        self.reduced.append(tensor)
        return tensor


def on_ranks(size: int, build: Callable[[Placement], torch.nn.Module]) -> list[Any]:
    return [build(Placement(PretendedRank(rank, size), CPU, torch.float32)) for rank in range(size)]


def fill(model: torch.nn.Module, whole: dict[str, Tensor]) -> None:
    """What the checkpoint reader does: copy each part's slice of the whole tensor."""
    for part in model_parts(model):
        tensor = whole[part.name]
        assert tuple(tensor.shape) == part.shape
        if part.axis is not None:
            tensor = tensor.narrow(part.axis, part.start, part.target.shape[part.axis])
        part.target.copy_(tensor)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def test_stacked_column_parallel_matrices_are_cut_each_on_its_own():
    whole = {"q.weight": torch.randn(8, 5), "k.weight": torch.randn(4, 5)}
    whole |= {"q.bias": torch.randn(8), "k.bias": torch.randn(4)}
    x = torch.randn(3, 5)
    ranks = on_ranks(
        2, lambda place: ColumnParallel([Rows("q", 8), Rows("k", 4)], 5, place, bias=True)
    )
    for layer in ranks:
        fill(layer, whole)
    q, k = zip(*(layer(x).split([4, 2], dim=-1) for layer in ranks), strict=True)
    for name, outputs in (("q", q), ("k", k)):
        expected = F.linear(x, whole[f"{name}.weight"], whole[f"{name}.bias"])
        torch.testing.assert_close(torch.cat(outputs, -1), expected)


def test_row_parallel_summands_add_up_and_the_bias_counts_once():
    whole = {"wo.weight": torch.randn(6, 8), "wo.bias": torch.randn(6)}
    x = torch.randn(3, 8)
    ranks = on_ranks(4, lambda place: RowParallel("wo", 8, 6, place, bias=True))
    for layer in ranks:
        fill(layer, whole)
    summands = [layer(x[:, 2 * rank : 2 * rank + 2]) for rank, layer in enumerate(ranks)]
    expected = F.linear(x, whole["wo.weight"]) + 4 * whole["wo.bias"]
    torch.testing.assert_close(torch.stack(summands).sum(0), expected)
    for layer, summand in zip(ranks, summands, strict=True):
        (reduced,) = layer.comm.reduced
        torch.testing.assert_close(reduced, summand - whole["wo.bias"])


def test_each_token_is_embedded_by_the_rank_that_holds_its_row():
    whole = {"tok_embeddings.weight": torch.randn(8, 5)}
    ranks = on_ranks(4, lambda place: VocabularyEmbedding("tok_embeddings", 8, 5, place))
    for layer in ranks:
        fill(layer, whole)
    token_ids = torch.tensor([7, 0, 3, 3, 4])
    summed = torch.stack([layer(token_ids) for layer in ranks]).sum(0)
    torch.testing.assert_close(summed, whole["tok_embeddings.weight"][token_ids])


def test_a_layer_adds_attention_and_leaves_its_own_last_sum_to_the_next():
    width, hidden, heads, dim = 12, 16, 4, 4
    whole = {
        "attention_norm.weight": torch.rand(width),
        "attention.wq.weight": torch.randn(heads * dim, width),
        "attention.wk.weight": torch.randn(2 * dim, width),
        "attention.wv.weight": torch.randn(2 * dim, width),
        "attention.wo.weight": torch.randn(width, heads * dim),
        "ffn_norm.weight": torch.rand(width),
        "feed_forward.w1.weight": torch.randn(hidden, width),
        "feed_forward.w3.weight": torch.randn(hidden, width),
        "feed_forward.w2.weight": torch.randn(width, hidden),
    }
    ranks = on_ranks(
        2, lambda place: TransformerLayer(width, heads, 2, dim, hidden, eps=1e-5, place=place)
    )
    stream, attended = torch.randn(3, width), torch.randn(3, width)
    streams, summands = [], []
    for layer in ranks:
        fill(layer, whole)
        grown, summand = layer.feed(stream.clone(), attended)
        streams.append(grown)
        summands.append(summand)
        assert [id(tensor) for tensor in layer.comm.reduced] == [id(attended), id(summands[-1])]
    normed = F.rms_norm(stream + attended, (width,), whole["ffn_norm.weight"], 1e-5)
    gate, up = (F.linear(normed, whole[f"feed_forward.{name}.weight"]) for name in ("w1", "w3"))
    expected = F.linear(F.silu(gate) * up, whole["feed_forward.w2.weight"])
    torch.testing.assert_close(torch.stack(summands).sum(0), expected)
    for mine in streams:
        assert torch.equal(mine, stream + attended)


def test_heads_go_whole_to_one_rank():
    whole = {"wq.weight": torch.randn(16, 6), "wk.weight": torch.randn(8, 6)}
    whole |= {"wv.weight": torch.randn(8, 6), "wo.weight": torch.randn(6, 16)}
    x = torch.randn(3, 6)
    ranks = on_ranks(2, lambda place: HeadProjections(6, 4, 2, head_dim=4, place=place))
    for layer in ranks:
        fill(layer, whole)
    projected = [layer.heads.split(layer.wqkv(x)) for layer in ranks]
    for index, name in enumerate(("wq", "wk", "wv")):
        joined = torch.cat([heads[index] for heads in projected], dim=1)
        torch.testing.assert_close(joined.flatten(1), F.linear(x, whole[f"{name}.weight"]))
    merged = torch.stack(
        [layer.wo(heads[0].flatten(1)) for layer, heads in zip(ranks, projected, strict=True)]
    )
    expected = F.linear(F.linear(x, whole["wq.weight"]), whole["wo.weight"])
    torch.testing.assert_close(merged.sum(0), expected)


def test_norm_statistics_are_float32_whatever_the_dtype():
    norm = RMSNorm("norm", 64, 1e-5, Placement(SingleRank(), CPU, torch.bfloat16))
    norm.weight.fill_(1.5)
    x = (1e3 * torch.randn(2, 64)).to(torch.bfloat16)
    exact = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-5)
    torch.testing.assert_close(norm(x), exact.to(torch.bfloat16) * 1.5, rtol=0, atol=0)
    assert norm(x).dtype == torch.bfloat16


def test_parts_are_named_by_the_path_of_what_holds_them():
    holder = torch.nn.Module()
    place = Placement(SingleRank(), CPU, torch.float32)
    holder.layers = torch.nn.ModuleList([GatedFeedForward(4, 8, place)])
    holder.norm = RMSNorm("norm", 4, 1e-5, place)
    assert {part.name for part in model_parts(holder)} == {
        "layers.0.w1.weight",
        "layers.0.w2.weight",
        "layers.0.w3.weight",
        "norm.weight",
    }
    assert "root.norm.weight" in {part.name for part in model_parts(holder, "root")}
    assert all(isinstance(module, Layer) for module in (holder.norm, holder.layers[0].w2))


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("bfloat16", "cpu", torch.bfloat16),
        ("float32", "cuda", torch.float32),
        (torch.float16, "cpu", torch.float16),
    ],
)
def test_compute_dtype(dtype, device, expected):
    assert compute_dtype(dtype, torch.device(device)) is expected
