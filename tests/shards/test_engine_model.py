"""The engine over a real (small, random) model: how requests are batched must not show."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ops.nano.checkpoint import NANO, write_checkpoint
from shards.comm import SingleRank
from shards.engine import Engine
from shards.grid import Grid
from shards.request import GenerationRequest, Picture, Sampling
from shards.runner import ModelRunner
from shards.tokenizer import Tokenizer
from tests.shards.engine_fixtures import drain, tokens_of

SMALL = replace(
    NANO,
    text=replace(NANO.text, dim=64, layers=2, heads=4, kv_heads=2, head_dim=16, hidden_dim=128),
    vision=replace(NANO.vision, hidden_size=88, heads=1, layers=1, intermediate_size=128),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("model")
    write_checkpoint(path, SMALL)
    return path


def engine_of(folder, **limits) -> tuple[Engine, Tokenizer]:
    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_folder(folder)
    runner = ModelRunner.load(
        folder,
        SingleRank(),
        device=torch.device("cpu"),
        dtype="float32",
        block_size=4,
        kv_cache_bytes=2**20,
    )
    values = {"max_batch_sequences": 16, "max_step_tokens": 512} | limits
    engine = Engine(
        runner,
        vocabulary=tokenizer.vocabulary,
        num_blocks=runner.num_blocks,
        block_size=runner.block_size,
        max_context_tokens=1024,
        max_waiting=16,
        **values,
    )
    return engine, tokenizer


def test_batched_chunked_and_forked_answers_equal_those_given_alone(folder):
    batched, tokenizer = engine_of(folder, max_step_tokens=16)
    alone, _ = engine_of(folder)
    vocabulary = tokenizer.vocabulary
    grid = Grid(3, 5)
    picture = grid.token_ids(
        vocabulary.image_id, vocabulary.image_break_id, vocabulary.image_end_id
    )
    rows = [np.random.default_rng(0).normal(size=(15, 88)).astype(np.float32)]
    pictures = (Picture(grid, "00"),)
    plans = [
        GenerationRequest("greedy", (1, *range(3000, 3050)), sampling(temperature=0)),
        GenerationRequest("drawn", (1, *range(900, 937)), sampling(seed=3, n=3)),
        GenerationRequest("seen", (1, 3, *picture, 4), sampling(seed=4, n=2, top_p=0.9), pictures),
    ]
    for request in plans:
        batched.add(request, rows if request.pictures else ())
    together = drain(batched)
    for request in plans:
        choices = range(request.sampling.n)
        alone.add(request, rows if request.pictures else ())
        expected = drain(alone)
        got = [tokens_of(together, request.request_id, choice) for choice in choices]
        assert got == [tokens_of(expected, request.request_id, choice) for choice in choices]
        assert len(set(got)) == len(got)
        assert all(len(tokens) == 10 for tokens in got)
    assert batched.stats().blocks_free == batched.stats().blocks_total


def sampling(**values) -> Sampling:
    return Sampling(**({"seed": 1, "max_tokens": 10, "ignore_eos": True} | values))
