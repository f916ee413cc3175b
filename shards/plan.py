"""How a model is cut over ranks, and the bytes that it takes. Standard library only.

Heads, feed-forward columns, vocabulary rows and the projector's width are cut evenly over the
ranks; norms are on every rank; the vision encoder is never cut (it is another tier's).
"""

from __future__ import annotations

from dataclasses import dataclass

from shards.config import ModelConfig
from shards.errors import PlanError


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of parameters."""

    decoder: int
    projector: int
    vision: int

    @property
    def total(self) -> int:
        return self.decoder + self.projector + self.vision


def check_cut(config: ModelConfig, ranks: int) -> None:
    """Refuse a number of ranks that does not cut the model evenly.

    Raises:
        PlanError: with every number that does not divide.
    """
    if ranks < 1:
        raise PlanError(f"a model is cut over at least 1 rank, not {ranks}")
    text = config.text
    widths = {
        "heads": text.heads,
        "kv heads": text.kv_heads,
        "hidden_dim": text.hidden_dim,
        "vocabulary": text.vocab_size,
        "projector width": text.dim,
    }
    uneven = [f"{name} {width}" for name, width in widths.items() if width % ranks]
    if uneven:
        raise PlanError(f"{ranks} ranks do not divide {', '.join(uneven)} evenly")


def rank_parameters(config: ModelConfig, ranks: int = 1) -> Parameters:
    """What one of ``ranks`` ranks holds (and, for vision, what one encoder holds whole)."""
    check_cut(config, ranks)
    text, vision = config.text, config.vision
    attention = 2 * text.dim * (text.heads + text.kv_heads) * text.head_dim
    feed_forward = 3 * text.dim * text.hidden_dim
    layer = (attention + feed_forward) // ranks + 2 * text.dim
    tables = 2 * text.vocab_size * text.dim // ranks
    vision_width = vision.heads * vision.head_dim
    vision_layer = (
        4 * vision.hidden_size * vision_width
        + 3 * vision.hidden_size * vision.intermediate_size
        + 2 * vision.hidden_size
    )
    # The first bias is cut with its rows, the second is added after the sum and so is whole.
    biases = text.dim // ranks + text.dim if config.adapter_bias else 0
    return Parameters(
        decoder=tables + text.layers * layer + text.dim,
        projector=(vision.hidden_size + text.dim) * text.dim // ranks + biases,
        vision=vision.patch_values * vision.hidden_size
        + vision.hidden_size
        + vision.layers * vision_layer,
    )


def kv_bytes_per_token(config: ModelConfig, ranks: int, value_bytes: int) -> int:
    """Bytes of keys and values that one token takes on one rank."""
    check_cut(config, ranks)
    text = config.text
    return 2 * text.layers * (text.kv_heads // ranks) * text.head_dim * value_bytes


def kv_blocks(cache_bytes: int, block_size: int, token_bytes: int) -> int:
    """Whole blocks of ``block_size`` tokens that ``cache_bytes`` hold.

    Raises:
        PlanError: not even one fits.
    """
    if block_size < 1:
        raise PlanError(f"a KV block holds at least 1 token, not {block_size}")
    blocks = cache_bytes // (block_size * token_bytes)
    if blocks < 1:
        raise PlanError(
            f"{cache_bytes} bytes of KV cache hold no block: {block_size} tokens take"
            f" {block_size * token_bytes}"
        )
    return blocks
