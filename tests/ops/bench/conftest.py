"""A model small enough to be measured in seconds, and a lab around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ops.bench.engine.lab import Lab
from ops.bench.engine.limits import Limits
from ops.bench.engine.matvec import MatrixVector
from ops.bench.engine.model import Model, written
from ops.bench.engine.run import Budget
from ops.nano import NANO
from shards.config import ModelConfig

TINY: ModelConfig = replace(
    NANO,
    adapter_bias=True,
    text=replace(NANO.text, dim=256, layers=3, heads=4, kv_heads=2, head_dim=32, hidden_dim=192),
    vision=replace(
        NANO.vision, hidden_size=64, layers=2, heads=2, head_dim=32, intermediate_size=96
    ),
)
BUDGET = Budget(
    repeats=1, new_tokens=4, text_tokens=12, small_side=32, side=64, flood=12, soak=150, threads=1
)
# Made up: what the machine can do takes long to find out, and is found out in a test of its own.
LIMITS = Limits(summed=1e10, matvecs={"made up": 1e10}, gemm=1e11, shapes={})


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def tiny(cache) -> Model:
    return written("tiny", TINY, cache)


class MadeUp(MatrixVector):
    """Compiles nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def stretch(self) -> float:
        self.asked += 1
        return 1e10


@pytest.fixture(scope="package")
def lab(tiny, cache) -> Iterator[Lab]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    lab = Lab(tiny, BUDGET, cache)
    lab.__dict__["limits"] = LIMITS
    lab.__dict__["matvec"] = MadeUp()
    yield lab
    lab.close()
    torch.set_num_threads(before)
