"""The vision bench runs, compares what it says it compares, and notices encoders that differ."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ops.bench import vision
from ops.bench.vision import Budget, FeaturesDifferError, as_json, as_markdown, measure
from shards.grid import Grid
from shards.vision_model import VisionEncoder
from tests.ops.bench.conftest import TINY

BUDGET = Budget(pictures=6, least=32, most=96, repeats=1, threads=1)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_runs_and_its_figures_are_numbers(cache: Path) -> None:
    result = measure("tiny", TINY.vision, BUDGET, cache)
    grids = vision.mixed_grids(TINY.vision, BUDGET)
    assert result.patches == sum(grid.patches for grid in grids)
    assert 0 < result.difference <= vision.TOLERANCE
    report = json.loads(as_json([result], 1))
    (shape,) = report["shapes"]
    assert math.isclose(shape["ratio"], shape["packed"]["best"] / shape["transformers"]["best"])
    assert f"| {result.ratio:.2f} |" in as_markdown([result], 1)


def test_sizes_are_mixed() -> None:
    grids = vision.mixed_grids(TINY.vision, Budget())
    assert len(set(grids)) >= 28
    assert min(grid.patches for grid in grids) < 25
    assert max(grid.patches for grid in grids) > 2500


def test_passes_hold_as_many_pictures_as_fit_in_order() -> None:
    grids = [Grid(1, 4), Grid(1, 5), Grid(1, 1), Grid(1, 20), Grid(1, 2)]
    assert list(vision.packed(grids, 10)) == [[0, 1, 2], [3], [4]]


def test_encoders_that_differ_are_noticed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = VisionEncoder.encode

    def wrong(self: VisionEncoder, patches: np.ndarray, grids: list[Grid]) -> torch.Tensor:
        return encode(self, patches, grids) + 1e-3

    monkeypatch.setattr(VisionEncoder, "encode", wrong)
    with pytest.raises(FeaturesDifferError, match="tiny"):
        measure("tiny", TINY.vision, BUDGET, cache)
