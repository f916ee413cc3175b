"""What a prompt costs: products with the weights, shape by shape, and attention beside them.

Counted are multiplications and additions, two for each pair of factors; norms, rotations and
activations are not: they are a thousandth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shards.config import ModelConfig
from shards.grid import Grid


@dataclass(frozen=True, slots=True)
class Product:
    """[rows, width] by a matrix [height, width], ``times`` per prompt, each with its own matrix."""

    name: str
    rows: int
    width: int
    height: int
    times: int

    @property
    def flops(self) -> int:
        """Of all of them."""
        return 2 * self.rows * self.width * self.height * self.times


def products(config: ModelConfig, tokens: int, patches: int) -> tuple[Product, ...]:
    """Every product with a weight that the first token of a prompt needs.

    Stacked as the engine stacks them (q with k and v, gate with up), which can only be faster than
    one by one; the head sees one row.

    Args:
        tokens: of the prompt, patches included.
        patches: of all its pictures; 0 for text.
    """
    text, vision = config.text, config.vision
    heads = text.heads * text.head_dim
    stacked = heads + 2 * text.kv_heads * text.head_dim
    seen = vision.heads * vision.head_dim
    found = (
        Product("patches", patches, vision.patch_values, vision.hidden_size, 1),
        Product("vision qkv", patches, vision.hidden_size, 3 * seen, vision.layers),
        Product("vision o", patches, seen, vision.hidden_size, vision.layers),
        Product(
            "vision gate-up",
            patches,
            vision.hidden_size,
            2 * vision.intermediate_size,
            vision.layers,
        ),
        Product(
            "vision down", patches, vision.intermediate_size, vision.hidden_size, vision.layers
        ),
        Product("projector in", patches, vision.hidden_size, text.dim, 1),
        Product("projector out", patches, text.dim, text.dim, 1),
        Product("qkv", tokens, text.dim, stacked, text.layers),
        Product("o", tokens, heads, text.dim, text.layers),
        Product("gate-up", tokens, text.dim, 2 * text.hidden_dim, text.layers),
        Product("down", tokens, text.hidden_dim, text.dim, text.layers),
        Product("head", 1, text.dim, text.vocab_size, 1),
    )
    return tuple(product for product in found if product.rows)


def attention_flops(config: ModelConfig, tokens: int, grids: Sequence[Grid]) -> int:
    """Scores and weighted sums: causal in the decoder, within each picture in the encoder."""
    text, vision = config.text, config.vision
    pairs = tokens * (tokens + 1) // 2
    seen = sum(grid.patches**2 for grid in grids)
    return 4 * (
        pairs * text.heads * text.head_dim * text.layers
        + seen * vision.heads * vision.head_dim * vision.layers
    )
