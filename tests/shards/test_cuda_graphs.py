"""What a CUDA graph of a decode step holds, computed without capturing it: the same logits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor

from ops.nano import NANO
from shards.attention import PagedCache, StepLayout
from shards.comm import SingleRank
from shards.cuda_graphs import Buffers, DecodeGraphs, decode_logits
from shards.layers import Placement
from shards.text_model import Decoder
from tests.shards.items import Part

CPU = torch.device("cpu")
BLOCK = 4


def small_model(device: torch.device) -> Decoder:
    config = replace(NANO, text=replace(NANO.text, layers=2, dim=64, hidden_dim=96, vocab_size=256))
    decoder = Decoder(config, Placement(SingleRank(), device, torch.float32, "torch"))
    torch.manual_seed(0)
    for parameter in decoder.parameters():
        parameter.copy_(0.05 * torch.randn(parameter.shape))
    return decoder


def caches(model: Decoder, device: torch.device = CPU) -> list[PagedCache]:
    torch.manual_seed(1)
    text = model.config
    made = [
        PagedCache.empty(128, BLOCK, text.kv_heads, text.head_dim, device, torch.float32)
        for _ in range(text.layers)
    ]
    for cache in made:
        cache.keys.copy_(torch.randn(cache.keys.shape))
        cache.values.copy_(torch.randn(cache.values.shape))
    return made


def decoding(*lengths: int, device: torch.device = CPU) -> tuple[Tensor, StepLayout]:
    """Sequences whose last of ``lengths`` positions is computed now, on blocks of their own."""
    items, first = [], 0
    for length in lengths:
        blocks = -(-length // BLOCK)
        table = tuple(range(first, first + blocks))
        items.append(Part((100 + length,), length - 1, table))
        first += blocks
    token_ids = torch.tensor([item.token_ids[0] for item in items])
    return token_ids.to(device), StepLayout.of(items, BLOCK, device)


def plain_logits(
    model: Decoder, token_ids: Tensor, layout: StepLayout, held: list[PagedCache]
) -> Tensor:
    hidden = model.embed(token_ids, token_ids[:0], None)
    return model.head(model(hidden, layout, held))


@pytest.fixture(scope="module")
def model():
    return small_model(CPU)


@pytest.mark.parametrize("lengths", [(1,), (9, 3), (5, 17, 2), (16, 16, 16, 16)])
def test_a_step_in_larger_buffers_has_the_same_logits_and_leaves_the_same_cache(model, lengths):
    buffers = Buffers.empty(4, 8, BLOCK, CPU)
    # An earlier, larger step must not show.
    buffers.fill(*decoding(30, 31, 32, 29))
    token_ids, layout = decoding(*lengths)
    plain, padded = caches(model), caches(model)
    expected = plain_logits(model, token_ids, layout, plain)
    buffers.fill(token_ids, layout)
    logits = decode_logits(model, buffers, padded)
    torch.testing.assert_close(logits[: len(lengths)], expected)
    for one, other in zip(plain, padded, strict=True):
        torch.testing.assert_close(one.keys, other.keys)
        torch.testing.assert_close(one.values, other.values)


def test_only_small_pure_decode_steps_are_covered(model):
    graphs = DecodeGraphs(model, caches(model), most_sequences=2, most_blocks=4)
    chunk = StepLayout.of([Part((1, 2), 0, (0,))], BLOCK, CPU)
    assert graphs.covers(decoding(16, 1)[1])
    assert not graphs.covers(decoding(17, 1)[1])
    assert not graphs.covers(decoding(1, 1, 1)[1])
    assert not graphs.covers(chunk)


def test_all_shapes_are_captured_in_one_pool_of_memory(model, monkeypatch):
    pools = []

    @contextmanager
    def capture(graph: Any, pool: Any) -> Iterator[None]:
        pools.append(pool)
        yield

    fake = MagicMock()
    fake.graph = capture
    fake.graph_pool_handle.side_effect = object
    monkeypatch.setattr(torch, "cuda", fake)
    graphs = DecodeGraphs(model, caches(model))
    for lengths in ((1,), (9, 3), (5, 17, 2), (1,)):
        graphs.logits(*decoding(*lengths))
    assert len(pools) == 3
    assert pools[0] is pools[1] is pools[2]
