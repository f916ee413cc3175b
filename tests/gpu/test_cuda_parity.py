"""The one code path on a CUDA device: the same tokens and features as on the CPU."""

import pytest
import torch

from shards.comm import ProcessGroup, SingleRank
from shards.runner import ModelRunner
from shards.vision_model import VisionEncoder
from tests.shards.reference import FAMILIES, save_mistral
from tests.shards.sequences import DrivenSequence, generate, scattered_blocks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FAMILY = FAMILIES["large"]
PROMPT = FAMILY.prompts()["three pictures"]
CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_mistral(FAMILY.model(), tmp_path_factory.mktemp("checkpoint") / "model")


@pytest.fixture(autouse=True)
def _full_precision():
    torch.backends.cuda.matmul.allow_tf32 = False


def features(folder, device, dtype="float32"):
    encoder = VisionEncoder.load(folder, device=device, dtype=dtype)
    return encoder.encode(PROMPT.patches(), PROMPT.grids).float().cpu()


def runner(folder, device, comm=None):
    return ModelRunner.load(
        folder,
        comm or SingleRank(),
        device=device,
        dtype="float32",
        block_size=8,
        kv_cache_bytes=2**20,
    )


def test_features_agree_with_the_cpu(folder):
    expected = features(folder, CPU)
    torch.testing.assert_close(features(folder, CUDA), expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(features(folder, CUDA, "bfloat16"), expected, atol=0.1, rtol=0.1)


def test_greedy_tokens_agree_with_the_cpu(folder):
    seen = features(folder, CPU).numpy()
    assert answer(runner(folder, CUDA), seen) == answer(runner(folder, CPU), seen)


def test_a_group_over_nccl_generates_the_same(folder, tmp_path):
    seen = features(folder, CPU).numpy()
    comm = ProcessGroup(0, 1, f"file://{tmp_path}/rendezvous", "nccl", CUDA, 60)
    try:
        assert answer(runner(folder, CUDA, comm), seen) == answer(runner(folder, CPU), seen)
    finally:
        comm.close()


def answer(loaded, seen, count=32):
    (blocks,) = scattered_blocks(loaded, 1)
    sequence = DrivenSequence(loaded, "one", PROMPT, seen, blocks)
    ((tokens, _),) = generate(loaded, [sequence], count)
    return tokens
