"""The vision encoder: patches of pictures of any sizes, packed, into features for the projector.

Never cut over ranks. Shapes: N patches of all pictures of a call.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from shards.checkpoint import load_weights
from shards.comm import SingleRank
from shards.config import VisionConfig, read_model_config
from shards.errors import RequestError
from shards.grid import Grid
from shards.kernels import KernelsName
from shards.layers import (
    DtypeName,
    Layer,
    Part,
    Placement,
    RMSNorm,
    TransformerLayer,
    compute_dtype,
    model_parts,
)
from shards.rotary import Rotation, picture_rotation

# On a CPU a pass is taken in parts of so many patches, unless one picture has more: what a layer
# hands to the next stays near the cores, in memory that the allocator keeps. GPUs take it whole.
CPU_PATCHES = 1024
# Neither layout states it; mistral-inference and transformers both fix it.
NORM_EPS = 1e-5


class VisionLayer(TransformerLayer):
    def __init__(self, config: VisionConfig, place: Placement) -> None:
        super().__init__(
            width=config.hidden_size,
            heads=config.heads,
            kv_heads=config.heads,
            head_dim=config.head_dim,
            hidden=config.intermediate_size,
            eps=NORM_EPS,
            place=place,
        )

    def forward(
        self, hidden: Tensor, addend: Tensor | None, rotation: Rotation, lengths: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        return self.feed(*self.attend.packed(hidden, addend, rotation, lengths))


class VisionTransformer(nn.Module):
    def __init__(self, config: VisionConfig, place: Placement) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config, place) for _ in range(config.layers))

    def forward(self, hidden: Tensor, rotation: Rotation, lengths: Sequence[int]) -> Tensor:
        """``hidden`` may be overwritten."""
        addend = None
        for layer in self.layers:
            hidden, addend = layer(hidden, addend, rotation, lengths)
        return hidden if addend is None else hidden + addend


class PatchEmbedding(Layer):
    """The patch convolution: kernel and stride agree, so it is a matrix over flattened patches."""

    def __init__(self, name: str, config: VisionConfig, place: Placement) -> None:
        super().__init__()
        self.name = name
        self.kernels = place.kernels
        self.window = (config.channels, config.patch_size, config.patch_size)
        self.weight = place.weight(config.hidden_size, config.patch_values)

    def forward(self, patches: Tensor) -> Tensor:
        return self.kernels.linear(patches, self.weight)

    def parts(self) -> Iterator[Part]:
        kernels = self.weight.view(-1, *self.window)
        yield Part(f"{self.name}.weight", tuple(kernels.shape), kernels)


class VisionEncoder(nn.Module):
    """Modules are named as Mistral's checkpoint names them, below ``vision_encoder``."""

    def __init__(self, config: VisionConfig, place: Placement) -> None:
        super().__init__()
        self.config = config
        self.place = place
        self.patch_conv = PatchEmbedding("patch_conv", config, place)
        self.ln_pre = RMSNorm("ln_pre", config.hidden_size, NORM_EPS, place)
        self.transformer = VisionTransformer(config, place)

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: torch.device,
        dtype: DtypeName | torch.dtype,
        kernels: KernelsName = "auto",
    ) -> VisionEncoder:
        """Read the encoder, and nothing else, from a checkpoint of either layout.

        Raises:
            ModelConfigError, CheckpointError: see ``read_model_config`` and ``load_weights``.
            KernelError: ``kernels`` insists on what cannot be had here.
        """
        config = read_model_config(folder)
        place = Placement(SingleRank(), device, compute_dtype(dtype, device), kernels)
        encoder = cls(config.vision, place)
        load_weights(model_parts(encoder, "vision_encoder"), folder, config.layout)
        return encoder.eval()

    def forward(self, patches: Tensor, grids: Sequence[Grid]) -> Tensor:
        rotation = picture_rotation(
            grids, self.config.head_dim, self.config.rope_theta, patches.device
        )
        hidden = self.ln_pre(self.patch_conv(patches))
        features: Tensor = self.transformer(hidden, rotation, [grid.patches for grid in grids])
        return features

    @torch.inference_mode()
    def encode(self, patches: Tensor | np.ndarray, grids: Sequence[Grid]) -> Tensor:
        """Features of packed pictures, before the projector.

        Args:
            patches: [N, channels * patch * patch] in channel, row, column order; the rows of each
                grid row by row, pictures one after the other.
            grids: one per picture.

        Returns:
            [N, vision hidden] in the encoder's dtype.

        Raises:
            RequestError: the patches are not those of the grids.
        """
        expected = (sum(grid.patches for grid in grids), self.config.patch_values)
        if not grids or tuple(patches.shape) != expected:
            raise RequestError(
                "patches",
                f"{len(grids)} pictures need an array of {expected}, not {tuple(patches.shape)}",
            )
        # Arrays are copied: those from an object store are read-only, which torch warns of.
        packed = patches if isinstance(patches, Tensor) else torch.tensor(patches)
        packed = packed.to(self.place.device, self.place.dtype)
        if self.place.device.type != "cpu":
            features: Tensor = self(packed, grids)
            return features
        parts = list(parted(grids, CPU_PATCHES))
        sizes = [sum(grid.patches for grid in part) for part in parts]
        return torch.cat(
            [self(rows, part) for rows, part in zip(torch.split(packed, sizes), parts, strict=True)]
        )


def parted(grids: Sequence[Grid], most: int) -> Iterator[list[Grid]]:
    """Neighbouring pictures of at most ``most`` patches together; a larger one is alone."""
    part: list[Grid] = []
    patches = 0
    for grid in grids:
        if part and patches + grid.patches > most:
            yield part
            part, patches = [], 0
        part.append(grid)
        patches += grid.patches
    if part:
        yield part
