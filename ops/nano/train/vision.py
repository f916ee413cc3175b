"""The first lesson: what lies in every patch, learned by the vision encoder alone."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from ops.nano.drawing.labels import SLOTS
from ops.nano.shape import TRAINED
from ops.nano.train.kernels import initialise, placement
from ops.nano.train.patches import PatchBatch, PatchBatches, PatchHead, patch_loss, patch_scores
from shards.vision_model import VisionEncoder

_VALIDATION_BATCHES = 6


class VisionLesson:
    name = "vision"

    def __init__(self, most_patches: int, batch_patches: int) -> None:
        encoder = VisionEncoder(TRAINED.vision, placement())
        initialise(encoder, TRAINED.vision.layers, torch.Generator().manual_seed(1))
        self.model = nn.ModuleDict(
            {"encoder": encoder, "patch_head": PatchHead(TRAINED.vision.hidden_size)}
        )
        self.batches = PatchBatches("train", most_patches, batch_patches)
        self._validation = PatchBatches("validation", most_patches, batch_patches)

    def loss(self, batch: PatchBatch) -> Tensor:
        return patch_loss(self._answers(batch), batch.labels)

    def pictures(self, batch: PatchBatch) -> int:
        return batch.count

    @torch.no_grad()
    def grade(self) -> dict[str, float]:
        right, asked = Counter[str](), Counter[str]()
        for index in range(_VALIDATION_BATCHES):
            batch = self._validation[index]
            answers = self._answers(batch)
            for slot, (good, count) in patch_scores(answers, batch.labels).items():
                right[slot] += good
                asked[slot] += count
        return {slot: right[slot] / max(asked[slot], 1) for slot in SLOTS}

    def _answers(self, batch: PatchBatch) -> Tensor:
        features = self.model["encoder"](batch.patches.float(), batch.grids)
        answers: Tensor = self.model["patch_head"](features)
        return answers
