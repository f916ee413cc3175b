"""The paged paths against the reference written out beside them."""

import itertools
import random

import pytest
import torch
from torch import Tensor

from shards.attention import PagedCache, StepLayout, block_diagonal, contiguous, paged
from tests.shards.items import Part

CPU = torch.device("cpu")
HEADS, KV_HEADS, HEAD_DIM, BLOCK = 6, 2, 8, 4


class History:
    """A sequence's queries, keys and values, all known from the start."""

    def __init__(self, length: int, blocks: list[int]) -> None:
        self.q = torch.randn(length, HEADS, HEAD_DIM)
        self.k = torch.randn(length, KV_HEADS, HEAD_DIM)
        self.v = torch.randn(length, KV_HEADS, HEAD_DIM)
        self.blocks = tuple(blocks)

    def step(self, start: int, stop: int) -> Part:
        return Part(tuple(range(start, stop)), start, self.blocks)

    def expected(self, start: int, stop: int) -> Tensor:
        return contiguous(self.q[start:stop], self.k[:stop], self.v[:stop])


@pytest.fixture
def cache():
    torch.manual_seed(0)
    cache = PagedCache.empty(32, BLOCK, KV_HEADS, HEAD_DIM, CPU, torch.float32)
    # Whatever an earlier owner of a block left behind must not show.
    cache.keys.normal_()
    cache.values.fill_(1e6)
    return cache


def compute(cache: PagedCache, *spans: tuple[History, int, int]) -> list[Tensor]:
    """One step over several spans [start, stop) of sequences."""
    layout = StepLayout.of([history.step(*span) for history, *span in spans], BLOCK, CPU)
    q, k, v = (
        torch.cat([getattr(history, name)[start:stop] for history, start, stop in spans])
        for name in "qkv"
    )
    return list(paged(q, k, v, cache, layout).split([stop - start for _, start, stop in spans]))


def deal_blocks(count: int) -> list[list[int]]:
    blocks = list(range(32))
    random.Random(0).shuffle(blocks)
    return [blocks[index::count] for index in range(count)]


def test_whole_prefill_equals_contiguous(cache):
    history = History(11, deal_blocks(1)[0])
    (attended,) = compute(cache, (history, 0, 11))
    torch.testing.assert_close(attended, history.expected(0, 11))


@pytest.mark.parametrize("cuts", [[4], [1, 2], [3, 5, 10], [10], list(range(1, 11))])
def test_any_chunking_equals_contiguous(cache, cuts):
    history = History(11, deal_blocks(1)[0])
    bounds = [0, *cuts, 11]
    attended = [
        compute(cache, (history, start, stop))[0] for start, stop in itertools.pairwise(bounds)
    ]
    torch.testing.assert_close(torch.cat(attended), history.expected(0, 11))


def test_a_mixed_step_keeps_sequences_apart(cache):
    lengths = (9, 14, 5, 7)
    histories = [
        History(length, blocks) for length, blocks in zip(lengths, deal_blocks(4), strict=True)
    ]
    decoding, late, fresh, other = histories
    compute(cache, (decoding, 0, 8), (late, 0, 6), (other, 0, 6))
    spans = ((decoding, 8, 9), (late, 6, 14), (fresh, 0, 5), (other, 6, 7))
    for attended, (history, start, stop) in zip(compute(cache, *spans), spans, strict=True):
        torch.testing.assert_close(attended, history.expected(start, stop))


def test_keys_and_values_land_in_the_slots_of_the_block_table(cache):
    history = History(9, [7, 2, 5])
    compute(cache, (history, 0, 9))
    slots = [28, 29, 30, 31, 8, 9, 10, 11, 20]  # the worked example of shards/step.py
    torch.testing.assert_close(cache.keys.flatten(0, 1)[slots], history.k)
    torch.testing.assert_close(cache.values.flatten(0, 1)[slots], history.v)


def test_packed_pictures_do_not_see_each_other():
    torch.manual_seed(0)
    lengths = [6, 1, 9]
    q, k, v = (torch.randn(16, 2, 8) for _ in range(3))
    attended = block_diagonal(q, k, v, lengths)
    mask = torch.block_diag(*(torch.ones(length, length) for length in lengths)).bool()
    scores = torch.einsum("thd,lhd->htl", q, k) * 8**-0.5
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    torch.testing.assert_close(attended, torch.einsum("htl,lhd->thd", weights, v))
