"""A captured decode step against the same step launched kernel by kernel."""

import pytest
import torch

from shards.cuda_graphs import DecodeGraphs
from tests.shards.test_cuda_graphs import caches, decoding, plain_logits, small_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@torch.inference_mode()
def test_replayed_steps_have_the_logits_of_launched_ones():
    torch.backends.cuda.matmul.allow_tf32 = False
    device = torch.device("cuda:0")
    model = small_model(device)
    held, plain = caches(model, device), caches(model, device)
    graphs = DecodeGraphs(model, held, most_sequences=4, most_blocks=16)
    # The first of each shape captures; the second replays it for another step.
    for lengths in ((1,), (9, 3), (5, 17, 2), (20, 31, 4), (16, 16, 16, 16)):
        token_ids, layout = decoding(*lengths, device=device)
        assert graphs.covers(layout)
        expected = plain_logits(model, token_ids, layout, plain)
        torch.testing.assert_close(graphs.logits(token_ids, layout), expected)
        for one, other in zip(plain, held, strict=True):
            torch.testing.assert_close(one.keys, other.keys)
