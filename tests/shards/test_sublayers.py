"""The C++ sublayers: bit for bit what their operations give one by one, and near plain torch."""

import pytest
import torch
from torch import Tensor

from shards.attention import PagedCache, StepLayout
from shards.kernels import (
    AttentionSublayer,
    AttentionWeights,
    FeedForwardSublayer,
    FeedForwardWeights,
    Heads,
    Kernels,
)
from shards.native.kernels import kernels_for
from shards.native.sublayers import NativeAttention, NativeFeedForward
from shards.rotary import Rotation, text_rotation
from tests.shards.items import Part

CPU = torch.device("cpu")
NATIVE = kernels_for("native", CPU, torch.float32)
BLOCK = 16
ROWS = [1, 3, 32, 33, 70]
SHAPES = [(40, Heads(4, 2, 20)), (64, Heads(6, 1, 16)), (17, Heads(2, 2, 8))]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def attention_weights(width: int, heads: Heads, dtype: torch.dtype) -> AttentionWeights:
    wqkv = torch.randn(heads.width, width) / width**0.5
    wo = torch.randn(width, heads.query * heads.dim) / width**0.5
    return AttentionWeights(torch.rand(width).to(dtype), 1e-5, wqkv.to(dtype), wo.to(dtype), heads)


def feed_forward_weights(width: int, hidden: int, dtype: torch.dtype) -> FeedForwardWeights:
    w13 = torch.randn(2 * hidden, width) / width**0.5
    w2 = torch.randn(width, hidden) / hidden**0.5
    return FeedForwardWeights(torch.rand(width).to(dtype), 1e-5, w13.to(dtype), w2.to(dtype))


def paged(sublayer: AttentionSublayer, hidden: Tensor, addend: Tensor | None) -> list[Tensor]:
    """The rows of a sequence in two steps, the second beside another sequence's only row."""
    heads, rows = sublayer.weights.heads, len(hidden)
    cache = PagedCache.empty(16, BLOCK, heads.key, heads.dim, CPU, torch.float32)
    table, other = tuple(range(8)), (12,)
    made: list[Tensor] = []
    for first, stop in ((0, rows // 2), (rows // 2, rows)):
        if first == stop:
            continue
        items = [Part(tuple(range(first, stop)), first, table), Part((0,), 0, other)]
        layout = StepLayout.of(items, BLOCK, CPU)
        rotation = text_rotation(layout.positions, heads.dim, 1e4)
        mine = torch.cat([hidden[first:stop], hidden[:1]])
        more = None if addend is None else torch.cat([addend[first:stop], addend[:1]])
        made += sublayer.paged(mine, more, rotation, cache, layout)
    return [*made, cache.keys, cache.values]


def packed(sublayer: AttentionSublayer, hidden: Tensor, addend: Tensor | None) -> list[Tensor]:
    heads, rows = sublayer.weights.heads, len(hidden)
    lengths = [rows] if rows < 3 else [2, rows - 2]
    angles = torch.linspace(0, 3, rows * heads.dim // 2).view(rows, -1)
    return [*sublayer.packed(hidden.clone(), addend, Rotation.by_angle(angles), lengths)]


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("width", "heads"), SHAPES, ids=str)
@pytest.mark.parametrize("added", [False, True])
def test_attention(rows, width, heads, added):
    weights = attention_weights(width, heads, torch.float32)
    native = NATIVE.attention(weights)
    assert isinstance(native, NativeAttention)
    hidden = torch.randn(rows, width)
    addend = torch.randn(rows, width) if added else None
    for run in (paged, packed) if heads.query == heads.key else (paged,):
        actual = run(native, hidden, addend)
        for mine, exact in zip(
            actual, run(AttentionSublayer(NATIVE, weights), hidden, addend), strict=True
        ):
            assert torch.equal(mine, exact)
        for mine, near in zip(
            actual, run(Kernels().attention(weights), hidden, addend), strict=True
        ):
            torch.testing.assert_close(mine, near, atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("width", "hidden_width"), [(40, 96), (64, 33), (17, 5)])
@pytest.mark.parametrize("added", [False, True])
def test_feed_forward(rows, width, hidden_width, added):
    weights = feed_forward_weights(width, hidden_width, torch.float32)
    native = NATIVE.feed_forward(weights)
    assert isinstance(native, NativeFeedForward)
    hidden = torch.randn(rows, width)
    addend = torch.randn(rows, width) if added else None
    stream, mine = native(hidden.clone(), addend)
    for other, equal in (
        (FeedForwardSublayer(NATIVE, weights), torch.equal),
        (Kernels().feed_forward(weights), near),
    ):
        other_stream, theirs = other(hidden.clone(), addend)
        assert torch.equal(stream, other_stream)
        assert equal(mine, theirs)
    assert torch.equal(stream, hidden if addend is None else hidden + addend)


def near(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=5e-5, rtol=5e-5)


def test_products_cut_over_threads_are_the_same_bits():
    weights = feed_forward_weights(256, 700, torch.float32)
    for rows in (2, 50):
        hidden = torch.randn(rows, 256)
        _, mine = NATIVE.feed_forward(weights)(hidden.clone(), None)
        assert torch.equal(mine, FeedForwardSublayer(NATIVE, weights)(hidden, None)[1])


def test_what_is_not_float32_is_left_to_torch():
    attention = NATIVE.attention(attention_weights(16, Heads(2, 1, 8), torch.bfloat16))
    feed_forward = NATIVE.feed_forward(feed_forward_weights(16, 8, torch.bfloat16))
    assert type(attention) is AttentionSublayer
    assert type(feed_forward) is FeedForwardSublayer
    hidden = torch.randn(3, 16).bfloat16()
    assert feed_forward(hidden, hidden.clone())[1].dtype is torch.bfloat16
