"""Batches of dialogues about pictures of one size, as token ids of equal length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from ops.nano.drawing.scene import KINDS, Scene, draw
from ops.nano.drawing.split import Split, generator
from ops.nano.questions.dialogue import Dialogue, about, about_nothing, about_two
from ops.nano.train.patches import PatchBatch, grid_size, pack
from ops.nano.train.tokens import ANSWER, ASK, BEGIN, END, IMAGE, DialogueTokens
from ops.nano.train.vocabulary import OTHER, Vocabulary
from shards.grid import Grid

_KIND_SHARES = (0.36, 0.32, 0.12, 0.2)
_PAIRS = 0.14  # of the batches
_WITHOUT_PICTURE = 0.05  # of the dialogues
_PAGES = 0.5  # of what is asked about, and as many pages that only their letters are learned from
_UNKNOWN = 0.01  # of the words of a question
_TURNS = 5
_TEXT_TOKENS = 75  # that so many turns take, about


@dataclass(frozen=True, slots=True)
class DialogueBatch:
    """Dialogues side by side.

    Attributes:
        pictures: of all dialogues in order, then those that nothing is asked about.
        token_ids: [dialogues * length] of the cut vocabulary.
        length: of each dialogue, filled up at its end.
        patch_rows: rows that show a patch.
        answer_rows: rows after which a token of an answer comes.
        targets: those tokens.
        turns: of each of those, the number of its turn in ``tasks``.
    """

    pictures: PatchBatch
    token_ids: Tensor
    length: int
    patch_rows: Tensor
    answer_rows: Tensor
    targets: Tensor
    turns: Tensor
    tasks: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.token_ids) // self.length


class DialogueBatches(Dataset[DialogueBatch]):
    """Batch number i, always the same.

    Args:
        most: patches in a picture at most.
        tokens: in a batch, about.
    """

    def __init__(self, split: Split, vocabulary: Vocabulary, most: int, tokens: int) -> None:
        self._split = split
        self._vocabulary = vocabulary
        self._most = most
        self._tokens = tokens
        self._text = DialogueTokens()

    def __getitem__(self, index: int) -> DialogueBatch:
        rng = generator(self._split, "dialogues", index)
        pairs = rng.random() < _PAIRS
        columns, rows = grid_size(rng, self._most // 2 if pairs else self._most)
        each = (2 if pairs else 1) * rows * (columns + 1) + _TEXT_TOKENS
        count = max(2, self._tokens // each)
        draw_ = _two if pairs else _one
        dialogues = [draw_(rng, columns, rows, self._split) for _ in range(count)]
        pages = [
            _scene(rng, "page", columns, rows, self._split) for _ in range(round(count * _PAGES))
        ]
        return self._batch(rng, dialogues, pages)

    def alphabet(self) -> set[int]:
        return self._text.alphabet()

    def _batch(
        self, rng: np.random.Generator, dialogues: list[Dialogue], pages: list[Scene]
    ) -> DialogueBatch:
        pictures = pack([scene for dialogue in dialogues for scene in dialogue.scenes] + pages)
        rows = [_Row.of(dialogue, pictures.grid, self._text) for dialogue in dialogues]
        length = max(len(row.token_ids) for row in rows)
        token_ids = np.full((len(rows), length), END)
        answer_rows: list[int] = []
        targets: list[int] = []
        turns: list[int] = []
        tasks: list[str] = []
        for place, row in enumerate(rows):
            token_ids[place, : len(row.token_ids)] = row.token_ids
            for start, stop, task in row.answers:
                answer_rows += range(place * length + start - 1, place * length + stop - 1)
                targets += row.token_ids[start:stop]
                turns += [len(tasks)] * (stop - start)
                tasks.append(task)
        ids = token_ids.reshape(-1)
        cut = self._vocabulary.cut(ids)
        in_question = np.concatenate([row.in_question(length) for row in rows])
        cut[in_question & (rng.random(len(cut)) < _UNKNOWN)] = OTHER
        return DialogueBatch(
            pictures=pictures,
            token_ids=torch.from_numpy(cut),
            length=length,
            patch_rows=torch.from_numpy(np.flatnonzero(ids == IMAGE)),
            answer_rows=torch.tensor(answer_rows),
            targets=torch.from_numpy(self._vocabulary.cut(np.array(targets))),
            turns=torch.tensor(turns),
            tasks=tuple(tasks),
        )


@dataclass(frozen=True, slots=True)
class _Row:
    """One dialogue; ``answers``: start, stop and task of each."""

    token_ids: list[int]
    questions: list[tuple[int, int]]
    answers: list[tuple[int, int, str]]

    @classmethod
    def of(cls, dialogue: Dialogue, grid: Grid, text: DialogueTokens) -> _Row:
        ids, questions, answers = [BEGIN], [], []
        for place, turn in enumerate(dialogue.turns):
            ids.append(ASK)
            if place == 0:
                ids += text.pictures([grid] * len(dialogue.scenes))
            start = len(ids)
            ids += text.text(turn.question)
            questions.append((start, len(ids)))
            ids.append(ANSWER)
            start = len(ids)
            ids += [*text.answer(turn), END]
            answers.append((start, len(ids), turn.task))
        return cls(ids, questions, answers)

    def in_question(self, length: int) -> NDArray[np.bool_]:
        inside = np.zeros(length, bool)
        for start, stop in self.questions:
            inside[start:stop] = True
        return inside


def _one(rng: np.random.Generator, columns: int, rows: int, split: Split) -> Dialogue:
    scene = _scene(rng, str(rng.choice(KINDS, p=_KIND_SHARES)), columns, rows, split)
    if rng.random() < _WITHOUT_PICTURE:
        return about_nothing(rng, scene, _TURNS)
    return about(rng, scene, _TURNS)


def _two(rng: np.random.Generator, columns: int, rows: int, split: Split) -> Dialogue:
    first, second = (_scene(rng, "shapes", columns, rows, split) for _ in range(2))
    return about_two(rng, (first, second), _TURNS)


def _scene(rng: np.random.Generator, kind: str, columns: int, rows: int, split: Split) -> Scene:
    return draw(rng, kind, columns, rows, split, exact=rng.random() < 0.75)
