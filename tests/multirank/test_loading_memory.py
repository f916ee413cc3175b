"""Loading a checkpoint of over 1 GB at two ranks: peak memory, and bytes read from disk."""

import shutil

import pytest
import torch

from shards.plan import rank_parameters
from tests.multirank.loading import big_config, measure_loading, write_checkpoint
from tests.multirank.ranks import on_ranks

pytestmark = pytest.mark.multirank

RANKS = 2


@pytest.mark.parametrize(
    ("layout", "dtype", "least_bytes"),
    # bfloat16 is widened while it loads: the file is half as large, the memory is the same.
    [("mistral", torch.float32, 1e9), ("hf", torch.bfloat16, 0.5e9)],
    ids=["mistral-float32", "hf-bfloat16"],
)
def test_a_rank_reads_its_share_and_holds_little_more(tmp_path, layout, dtype, least_bytes):
    config = big_config(layout)
    folder = write_checkpoint(tmp_path / "model", config, dtype)
    try:
        assert sum(file.stat().st_size for file in folder.iterdir()) >= least_bytes
        costs = on_ranks(RANKS, measure_loading, folder)
    finally:
        shutil.rmtree(folder)
    share = rank_parameters(config, RANKS)
    parameters = share.decoder + share.projector
    for cost in costs:
        assert cost.peak_memory <= 1.25 * parameters * 4 + 400e6
        assert cost.peak_memory >= parameters * 4  # else nothing was measured
        assert cost.reader_read == parameters * dtype.itemsize
        assert cost.process_read <= 1.05 * parameters * dtype.itemsize
