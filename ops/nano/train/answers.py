"""The second lesson: to answer, learned by encoder, projector and decoder together."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, the field's name for it

from ops.nano.shape import TRAINED
from ops.nano.train.dialogues import DialogueBatch, DialogueBatches
from ops.nano.train.kernels import initialise, placement
from ops.nano.train.patches import PatchHead, patch_loss
from ops.nano.train.vocabulary import OTHER, Vocabulary
from shards.attention import StepLayout
from shards.text_model import Decoder
from shards.vision_model import VisionEncoder

_VALIDATION_BATCHES = 5
# Of the patches' loss, against the answers'; it sums over many slots.
_PATCH_WEIGHT = 0.15


class AnswersLesson:
    """Pictures and dialogues."""

    name = "answers"

    def __init__(self, vocabulary: Vocabulary, most_patches: int, batch_tokens: int) -> None:
        self.vocabulary = vocabulary
        place, generator = placement(), torch.Generator().manual_seed(2)
        cut = replace(TRAINED, text=replace(TRAINED.text, vocab_size=len(vocabulary)))
        self.encoder, self.decoder = VisionEncoder(TRAINED.vision, place), Decoder(cut, place)
        initialise(self.encoder, TRAINED.vision.layers, generator)
        initialise(self.decoder, TRAINED.text.layers, generator)
        self.model = nn.ModuleDict(
            {
                "encoder": self.encoder,
                "patch_head": PatchHead(TRAINED.vision.hidden_size),
                "decoder": self.decoder,
            }
        )
        self.batches = DialogueBatches("train", vocabulary, most_patches, batch_tokens)
        self._validation = DialogueBatches("validation", vocabulary, most_patches, batch_tokens)

    def begin_from(self, file: Path) -> None:
        """Take over what the first lesson learned."""
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["average"], strict=False)

    def loss(self, batch: DialogueBatch) -> Tensor:
        logits, features = self._forward(batch)
        loss = F.cross_entropy(logits, batch.targets)
        seen = self.model["patch_head"](features)
        return loss + _PATCH_WEIGHT * patch_loss(seen, batch.pictures.labels)

    def pictures(self, batch: DialogueBatch) -> int:
        return batch.pictures.count

    @torch.no_grad()
    def grade(self) -> dict[str, float]:
        """Share of answers that greedy decoding would give exactly, by task."""
        right, asked = Counter[str](), Counter[str]()
        for index in range(_VALIDATION_BATCHES):
            batch = self._validation[index]
            logits, _ = self._forward(batch)
            wrong = torch.zeros(len(batch.tasks), dtype=torch.int64)
            wrong.index_add_(0, batch.turns, (logits.argmax(1) != batch.targets).long())
            for task, mistakes in zip(batch.tasks, wrong.tolist(), strict=True):
                right[task] += not mistakes
                asked[task] += 1
        return {task: right[task] / asked[task] for task in sorted(asked)}

    def _forward(self, batch: DialogueBatch) -> tuple[Tensor, Tensor]:
        """Logits [answer tokens, rows of the vocabulary], and features of all patches."""
        decoder = self.decoder
        features = self.encoder(batch.pictures.patches.float(), batch.pictures.grids)
        layout = StepLayout.uncached([batch.length] * batch.count, batch.token_ids.device)
        shown = features[: len(batch.patch_rows)]
        hidden = decoder.embed(batch.token_ids, batch.patch_rows, shown)
        hidden = decoder(hidden, layout, [None] * len(decoder.layers))
        logits = decoder.head(hidden[batch.answer_rows])
        crowd = F.one_hot(torch.tensor(OTHER), logits.shape[1]) * self.vocabulary.crowd
        return logits + crowd, features


def dialogue_ids(batches: int = 60) -> set[int]:
    """Ids that occur in the dialogues of the first so many batches, and the alphabet."""
    everything = Vocabulary(range(TRAINED.text.vocab_size), TRAINED.text.vocab_size)
    drawn = DialogueBatches("train", everything, 48, 8192)
    needed = drawn.alphabet()
    for index in range(batches):
        needed.update((drawn[index].token_ids - 1).tolist())
    return needed - {OTHER - 1}
