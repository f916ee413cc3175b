"""What requests do to single ids' logits before anything is drawn.

In this order: ``logit_bias`` is added; the repetition penalty divides positive and multiplies
negative logits of ids in prompt or output (as Hugging Face); presence and frequency penalties are
subtracted for ids in the output (as OpenAI); banned ids, and what a mask does not allow, become
-inf.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TypeAlias

import torch

from shards.step import SampleSpec

# (row, vocabulary id, number)
_Entry: TypeAlias = tuple[int, int, float]


def adjust_(logits: torch.Tensor, specs: Sequence[SampleSpec], vocab_start: int) -> torch.Tensor:
    """Change logits [S, width], which are those of ids from ``vocab_start`` on; returns them.

    Where a mask and bans together leave no id, the mask alone holds: a grammar that is done ends
    the answer, whatever ``min_tokens`` says.
    """
    if any(spec.draws.logit_bias for spec in specs):
        rows, columns, bias = _local(_biases(specs), logits, vocab_start)
        logits.index_put_((rows, columns), bias, accumulate=True)
    if any(spec.draws.repetition_penalty != 1 for spec in specs):
        rows, columns, penalty = _repetitions(specs, logits, vocab_start)
        # An id of both prompt and output stands there twice, and gets the same number twice.
        seen = logits[rows, columns]
        logits[rows, columns] = torch.where(seen < 0, seen * penalty, seen / penalty)
    if any(spec.output_counts for spec in specs):
        rows, columns, penalty = _local(_occurrences(specs), logits, vocab_start)
        logits[rows, columns] -= penalty
    masked = [row for row, spec in enumerate(specs) if spec.mask]
    for banned, rows_of_it in _bans(specs).items():
        columns = _columns(banned, vocab_start, logits.shape[1], logits.device)
        _forbid_(logits, rows_of_it, columns)
    if masked:
        _mask_(logits, masked, [specs[row] for row in masked], vocab_start)
    return logits


def _forbid_(logits: torch.Tensor, rows: list[int], columns: torch.Tensor) -> None:
    if len(rows) == len(logits):
        logits.index_fill_(1, columns, float("-inf"))
    else:
        logits[torch.tensor(rows, device=logits.device).unsqueeze(1), columns] = float("-inf")


def _mask_(
    logits: torch.Tensor, rows: list[int], specs: Sequence[SampleSpec], vocab_start: int
) -> None:
    """Forbid what the masks of ``specs``, at ``rows``, do not allow; ids past their end neither."""
    stop = vocab_start + logits.shape[1]
    allowed = torch.zeros(len(rows), stop, dtype=torch.bool)
    for place, spec in enumerate(specs):
        bits = _bits(spec.mask)[:stop]
        allowed[place, : len(bits)] = bits
    mine = allowed[:, vocab_start:].to(logits.device)
    index = torch.tensor(rows, device=logits.device)
    logits[index] = logits[index].masked_fill(~mine, float("-inf"))


def _bits(mask: bytes) -> torch.Tensor:
    """Booleans [8 * len(mask)], by id."""
    octets = torch.frombuffer(bytearray(mask), dtype=torch.uint8).unsqueeze(1)
    shifts = torch.arange(8, dtype=torch.uint8)
    return (octets >> shifts).bitwise_and_(1).bool().flatten()


@lru_cache(maxsize=512)
def _columns(
    token_ids: tuple[int, ...], vocab_start: int, width: int, device: torch.device
) -> torch.Tensor:
    """Columns of those ids that this rank holds. The same sets are asked for at every step: a few
    that are banned, and a prompt's of each penalised request.
    """
    columns = torch.tensor(token_ids, dtype=torch.int64, device=device) - vocab_start
    return columns[(columns >= 0) & (columns < width)]


def _biases(specs: Sequence[SampleSpec]) -> Iterable[_Entry]:
    for row, spec in enumerate(specs):
        for token_id, bias in spec.draws.logit_bias:
            yield row, token_id, bias


def _repetitions(
    specs: Sequence[SampleSpec], logits: torch.Tensor, vocab_start: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows, columns and penalties; of a long prompt nothing is looked at again from Python."""
    penalised = [
        (row, spec) for row, spec in enumerate(specs) if spec.draws.repetition_penalty != 1
    ]
    rows, columns, penalties = _local(_repeated_output(penalised), logits, vocab_start)
    prompts = [
        _columns(spec.draws.prompt_ids, vocab_start, logits.shape[1], logits.device)
        for _, spec in penalised
    ]
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    of_prompts = torch.tensor([row for row, _ in penalised]).repeat_interleave(lengths)
    factors = [spec.draws.repetition_penalty for _, spec in penalised]
    numbers = torch.tensor(factors, dtype=logits.dtype)
    return (
        torch.cat([rows, of_prompts.to(logits.device)]),
        torch.cat([columns, *prompts]),
        torch.cat([penalties, numbers.repeat_interleave(lengths).to(logits.device)]),
    )


def _repeated_output(penalised: Iterable[tuple[int, SampleSpec]]) -> Iterable[_Entry]:
    for row, spec in penalised:
        for token_id, _ in spec.output_counts:
            yield row, token_id, spec.draws.repetition_penalty


def _occurrences(specs: Sequence[SampleSpec]) -> Iterable[_Entry]:
    for row, spec in enumerate(specs):
        presence, frequency = spec.draws.presence_penalty, spec.draws.frequency_penalty
        if presence or frequency:
            for token_id, count in spec.output_counts:
                yield row, token_id, presence + frequency * count


def _bans(specs: Sequence[SampleSpec]) -> dict[tuple[int, ...], list[int]]:
    """Rows by what they ban: mostly the same hundreds of control ids for all of them."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for row, spec in enumerate(specs):
        if spec.banned and not (spec.mask and _exhausted(spec)):
            rows.setdefault(spec.banned, []).append(row)
    return rows


def _exhausted(spec: SampleSpec) -> bool:
    """Whether all that the mask allows is banned; every rank looks at the whole vocabulary."""
    bits = _bits(spec.mask)
    banned = torch.tensor(spec.banned)
    bits[banned[banned < len(bits)]] = False
    return not bits.any()


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
