"""The shape of pixtral-nano: Pixtral Large in small."""

from __future__ import annotations

from shards.config import ModelConfig, TextConfig, VisionConfig

TRAINED = ModelConfig(
    text=TextConfig(
        dim=192,
        layers=4,
        heads=8,
        kv_heads=4,
        head_dim=32,
        hidden_dim=512,
        vocab_size=32768,
        rope_theta=1e9,
        norm_eps=1e-5,
        max_positions=128_000,
    ),
    vision=VisionConfig(
        hidden_size=192,
        layers=6,
        heads=4,
        head_dim=48,
        intermediate_size=512,
        image_size=1024,
        patch_size=16,
        rope_theta=1e4,
    ),
    image_token_id=10,
    adapter_bias=False,
    layout="mistral",
)
"""17.2 M parameters, 12.6 M of them in the two tables; heads divide by 1, 2 and 4 ranks."""
