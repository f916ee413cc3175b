"""Weights and caches are advised to lie on large pages, and stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from shards.attention import PagedCache
from shards.comm import SingleRank
from shards.host_memory import on_large_pages
from shards.layers import Placement

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(),
    reason="this kernel knows no transparent large pages",
)


def advised(tensor: torch.Tensor) -> bool:
    """Whether the kernel was told so of the middle of a tensor (``hg`` in /proc/self/smaps)."""
    middle = tensor.data_ptr() + tensor.nbytes // 2
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, last = line.split(" ", 1)[0].partition("-")
        if last:
            inside = int(first, 16) <= middle < int(last, 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("the tensor is in no mapping")


def test_a_fresh_tensor_is_not_advised_by_itself():
    assert not advised(torch.empty(64 * 2**20))


def test_weights_are():
    assert advised(Placement(SingleRank(), CPU, torch.float32).weight(4096, 4096))


def test_keys_and_values_are_and_begin_as_zeros():
    cache = PagedCache.empty(1024, 16, 4, 64, CPU, torch.float32)
    assert advised(cache.keys)
    assert advised(cache.values)
    assert not cache.keys.any()


@pytest.mark.parametrize("numbers", [0, 1, 1000])
def test_a_small_tensor_is_left_alone(numbers):
    small = torch.ones(numbers)
    assert on_large_pages(small) is small
    assert small.eq(1).all()
