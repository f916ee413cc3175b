"""The shape of a Pixtral model, read from either checkpoint layout. Standard library only.

``params.json`` (Mistral) and ``config.json`` (Hugging Face) describe the same model; nothing that a
file states is ever derived (12B: 32 heads x 128 is 4096, not its dim of 5120).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["mistral", "hf"]


@dataclass(frozen=True, slots=True)
class TextConfig:
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden_dim: int
    vocab_size: int
    rope_theta: float
    norm_eps: float
    max_positions: int


@dataclass(frozen=True, slots=True)
class VisionConfig:
    hidden_size: int
    layers: int
    heads: int
    head_dim: int
    intermediate_size: int
    image_size: int
    patch_size: int
    rope_theta: float
    channels: int = 3

    @property
    def patch_values(self) -> int:
        """Numbers in one flattened patch (channel, row, column)."""
        return self.channels * self.patch_size * self.patch_size


@dataclass(frozen=True, slots=True)
class ModelConfig:
    text: TextConfig
    vision: VisionConfig
    image_token_id: int
    adapter_bias: bool
    layout: Layout
