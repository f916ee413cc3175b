"""Loading a checkpoint of over 1 GB at two ranks: peak memory, and bytes read from disk."""

import shutil

import pytest
import torch

from shards.plan import rank_parameters
from tests.multirank.loading import big_config, measure_loading, write_checkpoint
from tests.multirank.ranks import on_ranks

pytestmark = pytest.mark.multirank

RANKS = 2
# bfloat16 is widened while it loads: its file is half as large, the memory is the same.
CHECKPOINTS = {
    "mistral-float32": (big_config("mistral"), torch.float32),
    "hf-bfloat16": (big_config("hf"), torch.bfloat16),
}


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """What loading each checkpoint cost, by rank."""
    root = tmp_path_factory.mktemp("big")
    try:
        folders = {
            name: write_checkpoint(root / name, *description)
            for name, description in CHECKPOINTS.items()
        }
        assert (folders["mistral-float32"] / "consolidated.safetensors").stat().st_size >= 1e9
        return on_ranks(RANKS, measure_loading, folders)
    finally:
        shutil.rmtree(root)


@pytest.mark.parametrize("rank", range(RANKS))
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_rank_reads_its_share_and_holds_little_more(costs, name, rank):
    config, dtype = CHECKPOINTS[name]
    share = rank_parameters(config, RANKS)
    parameters = share.decoder + share.projector
    cost = costs[rank][name]
    assert cost.peak_memory <= 1.25 * parameters * 4 + 400e6
    assert cost.peak_memory >= parameters * 4  # else nothing was measured
    assert cost.reader_read == parameters * dtype.itemsize
    assert cost.process_read <= 1.05 * parameters * dtype.itemsize
