"""The model that is measured: its shape, its weights on disk, what a step reads of them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ops.nano import write_checkpoint
from ops.nano.checkpoint import SEED, Family, parameters
from ops.settings import bundled_folder
from shards.config import ModelConfig, TextConfig, VisionConfig
from shards.plan import rank_parameters

FLOAT_BYTES = 4
Values = Callable[[str, tuple[int, ...]], NDArray[np.float32]]

PINNED = ModelConfig(
    text=TextConfig(
        dim=1024,
        layers=16,
        heads=16,
        kv_heads=4,
        head_dim=64,
        hidden_dim=2816,
        vocab_size=131_072,
        rope_theta=1e9,
        norm_eps=1e-5,
        max_positions=128_000,
    ),
    vision=VisionConfig(
        hidden_size=512,
        layers=8,
        heads=8,
        head_dim=64,
        intermediate_size=1408,
        image_size=1024,
        patch_size=16,
        rope_theta=1e4,
    ),
    image_token_id=10,
    adapter_bias=True,
    layout="mistral",
)
"""Pixtral 12B in small; its figures are quoted, so its shape does not change."""


@dataclass(frozen=True, slots=True)
class Model:
    """A checkpoint and its shape. ``name`` says which one in reports."""

    name: str
    folder: Path
    config: ModelConfig

    @property
    def family(self) -> Family:
        return family_of(self.config)

    @property
    def break_and_end(self) -> tuple[int, int]:
        """Ids of [IMG_BREAK] and [IMG_END]."""
        return (12, 13) if self.family == "12b" else (14, 15)

    @property
    def step_bytes(self) -> int:
        """Bytes of float32 weights that decoding one token of each sequence reads."""
        return FLOAT_BYTES * step_parameters(self.config)


def family_of(config: ModelConfig) -> Family:
    """Whose tokenizer has as many ids as the model."""
    return "12b" if config.text.vocab_size == PINNED.text.vocab_size else "large"


def step_parameters(config: ModelConfig) -> int:
    """Parameters read by a decode step: neither vision and projector nor the embedding table, of
    which a token takes one row."""
    text = config.text
    return rank_parameters(config).decoder - text.vocab_size * text.dim


def pinned(cache: Path | None = None) -> Model:
    """The model whose figures are quoted, written once into the cache folder (0.95 GB).

    Raises:
        ValueError: its counts are not those that the goals were set for.
    """
    counts = parameters(PINNED), step_parameters(PINNED)
    if tuple(round(count / 1e6) for count in counts) != (476, 315):
        raise ValueError(f"the pinned model has 476 M parameters and reads 315 M, not {counts}")
    return written("pinned", PINNED, cache)


def written(
    name: str, config: ModelConfig, cache: Path | None = None, values: Values | None = None
) -> Model:
    """A model of this shape in ``cache``, written there unless it is.

    The folder is named after what the weights follow from, and appears whole or not at all.

    Args:
        values: makes the weights by name and shape; random ones when None. Models of one name and
            shape share a folder, so a name belongs to one way to make them.
    """
    cache = cache or bundled_folder().parent
    recipe = json.dumps({"name": name, "seed": SEED, "model": asdict(config)}, sort_keys=True)
    folder = cache / f"bench-{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=cache) as scratch:
            fresh = Path(scratch, "fresh")
            write_checkpoint(fresh, config, family=family_of(config), values=values)
            fresh.rename(folder)
    return Model(name, folder, config)
