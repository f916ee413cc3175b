"""What requests do to single ids' logits before anything is drawn.

In this order: ``logit_bias`` is added; the repetition penalty divides positive and multiplies
negative logits of ids in prompt or output (as Hugging Face); presence and frequency penalties are
subtracted for ids in the output (as OpenAI); banned ids become -inf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import torch

from shards.step import SampleSpec

# (row, vocabulary id, number)
_Entry: TypeAlias = tuple[int, int, float]


def adjusted(logits: torch.Tensor, specs: Sequence[SampleSpec], vocab_start: int) -> torch.Tensor:
    """A changed copy of logits [S, width], which are those of ids from ``vocab_start`` on."""
    scores = logits.clone()
    rows, columns, bias = _local(_biases(specs), scores, vocab_start)
    scores.index_put_((rows, columns), bias, accumulate=True)

    rows, columns, penalty = _local(_repetitions(specs), scores, vocab_start)
    seen = scores[rows, columns]
    scores[rows, columns] = torch.where(seen < 0, seen * penalty, seen / penalty)

    rows, columns, penalty = _local(_occurrences(specs), scores, vocab_start)
    scores[rows, columns] -= penalty

    for banned, of_rows in _bans(specs).items():
        columns = torch.tensor(banned, device=scores.device) - vocab_start
        columns = columns[(columns >= 0) & (columns < scores.shape[1])]
        scores[torch.tensor(of_rows, device=scores.device).unsqueeze(1), columns] = float("-inf")
    return scores


def _biases(specs: Sequence[SampleSpec]) -> Iterable[_Entry]:
    for row, spec in enumerate(specs):
        for token_id, bias in spec.logit_bias:
            yield row, token_id, bias


def _repetitions(specs: Sequence[SampleSpec]) -> Iterable[_Entry]:
    for row, spec in enumerate(specs):
        if spec.repetition_penalty != 1:
            for token_id in {*spec.prompt_ids, *(token_id for token_id, _ in spec.output_counts)}:
                yield row, token_id, spec.repetition_penalty


def _occurrences(specs: Sequence[SampleSpec]) -> Iterable[_Entry]:
    for row, spec in enumerate(specs):
        if spec.presence_penalty or spec.frequency_penalty:
            for token_id, count in spec.output_counts:
                yield row, token_id, spec.presence_penalty + spec.frequency_penalty * count


def _bans(specs: Sequence[SampleSpec]) -> dict[tuple[int, ...], list[int]]:
    """Rows by what they ban: mostly the same hundreds of control ids for all of them."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, spec in enumerate(specs):
        if spec.banned:
            rows.setdefault(spec.banned, []).append(row)
    return rows


def _local(
    entries: Iterable[_Entry], scores: torch.Tensor, vocab_start: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, columns and numbers of the entries whose ids this rank holds."""
    stop = vocab_start + scores.shape[1]
    mine = [entry for entry in entries if vocab_start <= entry[1] < stop]
    rows = torch.tensor([row for row, _, _ in mine], dtype=torch.int64)
    columns = torch.tensor([token_id - vocab_start for _, token_id, _ in mine], dtype=torch.int64)
    numbers = torch.tensor([number for _, _, number in mine], dtype=scores.dtype)
    return rows.to(scores.device), columns.to(scores.device), numbers.to(scores.device)
