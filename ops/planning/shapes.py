"""The shapes of the released models, so that a cluster can be planned where no checkpoint lies."""

from __future__ import annotations

from collections.abc import Mapping

from ops.problem import Problem
from serve_app.config import Model
from shards.config import ModelConfig, TextConfig, VisionConfig, read_model_config
from shards.errors import ModelConfigError

# As in params.json of each release.
RELEASED: Mapping[str, ModelConfig] = {
    "pixtral-12b": ModelConfig(
        text=TextConfig(5120, 40, 32, 8, 128, 14336, 131072, 1e9, 1e-5, 131072),
        vision=VisionConfig(1024, 24, 16, 64, 4096, 1024, 16, 1e4),
        image_token_id=10,
        adapter_bias=True,
        layout="mistral",
    ),
    "pixtral-large": ModelConfig(
        text=TextConfig(12288, 88, 96, 8, 128, 28672, 32768, 1e9, 1e-5, 131072),
        vision=VisionConfig(1408, 40, 16, 88, 6144, 1024, 16, 1e4),
        image_token_id=10,
        adapter_bias=False,
        layout="mistral",
    ),
}


def shape_of(model: Model) -> ModelConfig:
    """From the checkpoint where it is, else by the model's name.

    Raises:
        Problem: neither tells.
    """
    if model.path.is_dir():
        try:
            return read_model_config(model.path)
        except ModelConfigError as error:
            raise Problem(f"model.path: {error}") from error
    for name, shape in RELEASED.items():
        if model.name.lower().startswith(name):
            return shape
    raise Problem(
        f"there is no checkpoint at {model.path}, and {model.name} is none of"
        f" {', '.join(RELEASED)}, whose shapes are known"
    )
