"""From a lesson's checkpoint to a folder that serves."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ops.nano.checkpoint import WEIGHTS, parameters, write_checkpoint
from ops.nano.folder import CARD
from ops.nano.shape import TRAINED
from ops.nano.train.answers import AnswersLesson
from ops.nano.train.card import card
from ops.nano.train.curve import plot
from shards.layers import Part, model_parts

_TABLES = ("tok_embeddings.weight", "output.weight")


def export(lesson: AnswersLesson, folder: Path) -> None:
    """Write the lesson's weights as Mistral's layout has them, in bfloat16, with whole tables."""
    tensors = {part.name: _stored(part) for part in _parts(lesson)}
    for name in _TABLES:
        tensors[name] = lesson.vocabulary.whole(tensors[name])

    def values(name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        array: NDArray[np.float32] = tensors[name].reshape(shape).contiguous().numpy()
        return array

    with torch.no_grad():
        write_checkpoint(folder, TRAINED, values=values)


def bundle(lesson: AnswersLesson, run: Path, folder: Path, scores: Mapping[str, Any]) -> None:
    """Write what is committed: weights, the card, the curve.

    Args:
        run: where the lessons' logs lie.
        scores: see ``card``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        export(lesson, Path(scratch))
        Path(scratch, WEIGHTS).rename(folder / WEIGHTS)
    tables = 2 * TRAINED.text.vocab_size * TRAINED.text.dim
    lessons = {name: _last(run / f"{name}.jsonl") for name in ("vision", "answers")}
    (folder / CARD).write_text(card(parameters(TRAINED), tables, lessons, scores), encoding="utf-8")
    plot(run, folder / "curve.png")


def _last(log: Path) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return entry


def _parts(lesson: AnswersLesson) -> list[Part]:
    return [*model_parts(lesson.encoder, "vision_encoder"), *model_parts(lesson.decoder)]


def _stored(part: Part) -> Tensor:
    """As a checkpoint holds it: rotated rows in adjacent pairs, where memory has them in halves."""
    rows = part.target.detach()
    if not part.rotary_heads:
        return rows
    head_dim = len(rows) // part.rotary_heads
    halves = rows.view(part.rotary_heads, 2, head_dim // 2, -1)
    return halves.transpose(1, 2).reshape(rows.shape)
