from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner, Result

from ops import cli
from ops.weights.transfer import PIECE_BYTES
from tests.ops.fakes import PARAMS
from tests.ops.weights.bucket import Bucket

TEXT = "consolidated-00001-of-00002.safetensors"
VISION = "consolidated-00002-of-00002.safetensors"
# Four pieces of text (the last one short) and one of vision.
TEXT_PIECES = 4


def write_checkpoint(folder: Path) -> Path:
    """Mistral's layout in two files with an index, and one of Hugging Face's beside it."""
    folder.mkdir(parents=True)
    (folder / "params.json").write_text(json.dumps(PARAMS))
    (folder / "tekken.json").write_text("{}")
    words = np.arange((TEXT_PIECES - 1) * PIECE_BYTES // 4 + 1000, dtype=np.uint32)
    save_file({"layers.0.attention.wq.weight": words}, folder / TEXT)
    save_file({"vision_encoder.ln_pre.weight": np.ones(1000, np.float32)}, folder / VISION)
    weight_map = {"layers.0.attention.wq.weight": TEXT, "vision_encoder.ln_pre.weight": VISION}
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "consolidated.safetensors.index.json").write_text(json.dumps(index))
    save_file({"language_model.lm_head.weight": words[:10]}, folder / "model.safetensors")
    return folder


@pytest.fixture
def weights() -> Callable[..., Result]:
    """``weights("verify", DIR)`` is the command."""

    def run(*words: object) -> Result:
        arguments = ["weights", *map(str, words)]
        return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)

    return run


@pytest.fixture
def checkpoint(tmp_path: Path, weights: Callable[..., Result]) -> Path:
    """A folder as it is uploaded, with its manifest."""
    folder = write_checkpoint(tmp_path / "release")
    assert weights("manifest", folder).exit_code == 0
    return folder


@pytest.fixture
def bucket(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    made = Bucket(checkpoint.parent)
    with made.served() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield made
