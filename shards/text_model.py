"""The decoder of one rank: Mistral's text model, with the projector that lets it see pictures.

Shapes: T tokens of a step, S of them sampled. Two all-reduces per layer, one for the embeddings,
one for the projector where the step holds patches. Nothing here knows of requests or files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, the field's name for it

from shards.attention import PagedCache, StepLayout
from shards.config import ModelConfig, TextConfig
from shards.layers import (
    ColumnParallel,
    Placement,
    RMSNorm,
    RowParallel,
    Rows,
    TransformerLayer,
    VocabularyEmbedding,
)
from shards.rotary import Rotation, text_rotation


class Projector(nn.Module):
    """Vision features into the decoder's width: w_out(gelu(w_in x)), exact (erf) GELU."""

    def __init__(self, config: ModelConfig, place: Placement) -> None:
        super().__init__()
        width, dim, bias = config.vision.hidden_size, config.text.dim, config.adapter_bias
        self.w_in = ColumnParallel([Rows("w_in", dim)], width, place, bias)
        self.w_out = RowParallel("w_out", dim, dim, place, bias)

    def forward(self, features: Tensor) -> Tensor:
        """[N, vision hidden] -> [N, dim]."""
        projected: Tensor = self.w_out(F.gelu(self.w_in(features)))
        return projected


class DecoderLayer(TransformerLayer):
    def __init__(self, config: TextConfig, place: Placement) -> None:
        super().__init__(
            width=config.dim,
            heads=config.heads,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            hidden=config.hidden_dim,
            eps=config.norm_eps,
            place=place,
        )

    def forward(
        self,
        hidden: Tensor,
        addend: Tensor | None,
        rotation: Rotation,
        cache: PagedCache | None,
        layout: StepLayout,
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the step are left in ``cache``, if any."""
        return self.feed(*self.attend.paged(hidden, addend, rotation, cache, layout))


class Decoder(nn.Module):
    """Modules are named as Mistral's checkpoint names them: their paths are the tensors' names."""

    def __init__(self, config: ModelConfig, place: Placement) -> None:
        super().__init__()
        self.config = config.text
        text = config.text
        self.tok_embeddings = VocabularyEmbedding(
            "tok_embeddings", text.vocab_size, text.dim, place
        )
        self.vision_language_adapter = Projector(config, place)
        self.layers = nn.ModuleList(DecoderLayer(text, place) for _ in range(text.layers))
        self.norm = RMSNorm("norm", text.dim, text.norm_eps, place)
        self.output = ColumnParallel([Rows("output", text.vocab_size)], text.dim, place)

    def embed(self, token_ids: Tensor, patch_rows: Tensor, features: Tensor | None) -> Tensor:
        """Token embeddings [T, dim], patches in their places.

        Args:
            token_ids: [T].
            patch_rows: [N] rows that show a patch.
            features: [N, vision hidden] of those, None where there are none.
        """
        hidden: Tensor = self.tok_embeddings(token_ids)
        if features is not None:
            hidden[patch_rows] = self.vision_language_adapter(features).to(hidden.dtype)
        return hidden

    def forward(
        self, hidden: Tensor, layout: StepLayout, caches: Sequence[PagedCache | None]
    ) -> Tensor:
        """[T, dim], which may be overwritten -> [T, dim] before the last norm.

        Args:
            caches: one per layer; None where nothing is kept (``StepLayout.uncached``).
        """
        rotation = text_rotation(layout.positions, self.config.head_dim, self.config.rope_theta)
        addend = None
        for layer, cache in zip(self.layers, caches, strict=True):
            hidden, addend = layer(hidden, addend, rotation, cache, layout)
        return hidden if addend is None else hidden + addend

    def head(self, hidden: Tensor) -> Tensor:
        """[S, dim] -> this rank's float32 logits [S, vocabulary / ranks]."""
        logits: Tensor = self.output(self.norm(hidden))
        return logits.to(torch.float32)
