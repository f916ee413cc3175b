from dataclasses import replace

import pytest
import torch

from shards.comm import SingleRank
from shards.config import ModelConfig
from shards.errors import PlanError
from shards.layers import Placement
from shards.plan import check_cut, kv_blocks, kv_bytes_per_token, rank_parameters
from shards.text_model import Decoder
from shards.vision_model import VisionEncoder
from tests.shards.test_config import LARGE, TWELVE_B


@pytest.mark.parametrize(
    ("config", "decoder", "projector", "vision", "total"),
    [
        (LARGE, 122_610_069_504, 168_296_448, 1_356_479_872, 124_134_845_824),
        (TWELVE_B, 12_247_782_400, 31_467_520, 403_489_792, 12_682_739_712),
    ],
)
def test_parameters_of_the_published_models(config, decoder, projector, vision, total):
    parameters = rank_parameters(config)
    assert (parameters.decoder, parameters.projector) == (decoder, projector)
    assert (parameters.vision, parameters.total) == (vision, total)


@pytest.mark.parametrize("config", [LARGE, TWELVE_B], ids=["large", "12b"])
@pytest.mark.parametrize("ranks", [1, 4, 8])
def test_the_layers_allocate_what_is_planned(config: ModelConfig, ranks: int):
    comm = SingleRank()
    comm.size = ranks
    place = Placement(comm, torch.device("meta"), torch.bfloat16)

    def allocated(model: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in model.parameters())

    planned = rank_parameters(config, ranks)
    assert allocated(Decoder(config, place)) == planned.decoder + planned.projector
    alone = replace(place, comm=SingleRank())
    assert allocated(VisionEncoder(config.vision, alone)) == planned.vision


@pytest.mark.parametrize(
    ("config", "ranks", "value_bytes", "expected"),
    [
        (LARGE, 1, 2, 360_448),
        (LARGE, 8, 2, 45_056),
        (LARGE, 1, 1, 180_224),
        (TWELVE_B, 1, 2, 163_840),
    ],
)
def test_kv_bytes_per_token(config, ranks, value_bytes, expected):
    assert kv_bytes_per_token(config, ranks, value_bytes) == expected


def test_blocks_are_whole():
    assert kv_blocks(cache_bytes=999, block_size=4, token_bytes=25) == 9


@pytest.mark.parametrize(
    ("cache_bytes", "block_size", "message"),
    [(99, 4, "99 bytes of KV cache hold no block: 4 tokens take 100"), (100, 0, "not 0")],
)
def test_a_cache_without_blocks_is_refused(cache_bytes, block_size, message):
    with pytest.raises(PlanError, match=message):
        kv_blocks(cache_bytes, block_size, token_bytes=25)


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_cuts_that_divide(ranks):
    check_cut(LARGE, ranks)
    check_cut(TWELVE_B, ranks)


@pytest.mark.parametrize(
    ("ranks", "named"),
    [
        (16, "16 ranks do not divide kv heads 8 evenly"),
        (3, "3 ranks do not divide kv heads 8, hidden_dim 28672, vocabulary 32768 evenly"),
        (0, "at least 1 rank, not 0"),
    ],
)
def test_cuts_that_do_not_divide_are_refused_with_every_number(ranks, named):
    with pytest.raises(PlanError, match=named):
        check_cut(LARGE, ranks)


def test_an_uneven_projector_is_refused():
    config = replace(LARGE, text=replace(LARGE.text, dim=12286))
    with pytest.raises(PlanError, match="projector width 12286"):
        check_cut(config, 4)
