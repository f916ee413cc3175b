"""Draws each sequence's next token from logits that are cut over the ranks.

    bias, penalties, bans, masks -> temperature -> top-k -> top-p -> min-p -> + noise -> largest

All ranks call it together and all return the same tokens; what crosses between them is a few
numbers per sequence, never the logits. Arithmetic is float32, the noise float64. A row's token
depends on its own logits and spec alone, so neither batch nor rank count matters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from shards.comm import Communicator
from shards.errors import GroupError
from shards.noise import largest
from shards.penalties import adjust_
from shards.request import TokenLogprob
from shards.step import SampleSpec
from shards.truncation import order_images, truncated, truncates

# Below this a temperature leaves no choice, and dividing by it overflows float32.
GREEDY_TEMPERATURE = 1e-5
_ID_BITS = 24
# Scores that are compared at once: the square root of a vocabulary, and a power of 2 as it is.
_GROUP = 256


@torch.inference_mode()
def sample(
    logits: torch.Tensor, specs: Sequence[SampleSpec], vocab_start: int, comm: Communicator
) -> list[TokenLogprob]:
    """One token per row; equal scores go to the lowest id.

    Args:
        logits: this rank's [S, vocabulary / ranks], any float type; float32 ones are overwritten,
            for at this size a copy costs as much as the draw.
        specs: one per row, the same on every rank.
        vocab_start: the vocabulary id of column 0.

    Raises:
        GroupError: a row has no finite score, as after a fault in weights or hardware.
    """
    if not specs:
        return []
    scores = logits.float()
    told = [row for row, spec in enumerate(specs) if spec.draws.logprobs is not None]
    raw = scores[told]
    picks = _picks(adjust_(scores, specs, vocab_start), specs, vocab_start, comm)
    details = _details(raw, picks[told], [specs[row] for row in told], vocab_start)
    gathered = comm.all_gather(torch.cat([picks.flatten(), details.flatten()])).cpu()
    picks_of_ranks = gathered[:, : picks.numel()].view(comm.size, *picks.shape)
    details_of_ranks = gathered[:, picks.numel() :].view(comm.size, *details.shape)

    # The first of equals is the lowest rank's, which holds the lowest ids.
    scores, ranks = picks_of_ranks[:, :, 0].max(dim=0)
    if not scores.isfinite().all():
        raise GroupError("the model computed no finite logit: its weights or hardware are at fault")
    winners = ranks.tolist()
    ids = picks_of_ranks[winners, range(len(specs)), 1].long().tolist()
    tokens = [TokenLogprob(token_id, math.nan) for token_id in ids]
    for place, row in enumerate(told):
        limit = specs[row].draws.logprobs or 0
        tokens[row] = _logprobs(ids[row], winners[row], details_of_ranks[:, place], limit)
    return tokens


def _picks(
    scores: torch.Tensor, specs: Sequence[SampleSpec], vocab_start: int, comm: Communicator
) -> torch.Tensor:
    """This rank's best score and its id, float64 [S, 2]."""
    drawn = [row for row, spec in enumerate(specs) if spec.draws.temperature >= GREEDY_TEMPERATURE]
    if len(drawn) == len(specs):
        best, column = _noisy(scores, specs, vocab_start, comm)
    else:
        values, column = _largest(scores)
        best = values.double()
        if drawn:
            noisy = _noisy(scores[drawn], [specs[row] for row in drawn], vocab_start, comm)
            best[drawn], column[drawn] = noisy
    return torch.stack([best, (column + vocab_start).double()], dim=1)


def _largest(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """``scores.max(dim=1)`` in a fifth of its time on the CPU: torch compares many values at once
    but looks for places one by one, so that is done within the best group of each row only.
    """
    groups = scores.reshape(len(scores), -1, math.gcd(scores.shape[1], _GROUP))
    values, group = groups.amax(dim=2).max(dim=1)
    rows = torch.arange(len(scores), device=scores.device)
    return values, groups[rows, group].argmax(dim=1) + group * groups.shape[2]


def _noisy(
    scores: torch.Tensor, specs: Sequence[SampleSpec], vocab_start: int, comm: Communicator
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest scores with noise [R], and their columns; the scores are overwritten."""
    temperature = torch.tensor([spec.draws.temperature for spec in specs], device=scores.device)
    scores.div_(temperature.unsqueeze(1))
    cut = [row for row, spec in enumerate(specs) if truncates(spec)]
    if len(cut) == len(specs):
        scores = truncated(scores, specs, comm)
    elif cut:
        scores[cut] = truncated(scores[cut], [specs[row] for row in cut], comm)
    draws = [(spec.draws.seed, spec.draws.choice, spec.index) for spec in specs]
    return largest(scores, draws, vocab_start)


def _details(
    raw: torch.Tensor, picks: torch.Tensor, specs: Sequence[SampleSpec], vocab_start: int
) -> torch.Tensor:
    """What logprobs need of this rank, float64 [L, 3 + 2N].

    The raw logit of its pick; the largest raw logit and the sum of exponentials relative to it;
    then its N likeliest ids and their raw logits.
    """
    if not specs:
        return raw.new_empty(0, 3, dtype=torch.float64)
    values = raw.double()
    chosen = values.gather(1, picks[:, 1:].long() - vocab_start)
    largest = values.amax(dim=1, keepdim=True)
    total = (values - largest).exp().sum(dim=1, keepdim=True)
    alternatives = min(max(spec.draws.logprobs or 0 for spec in specs), raw.shape[1])
    columns = _likeliest(raw, alternatives)
    ids = (columns + vocab_start).double()
    return torch.cat([chosen, largest, total, ids, values.gather(1, columns)], dim=1)


def _likeliest(raw: torch.Tensor, count: int) -> torch.Tensor:
    """Columns [L, count] of the largest values; among equals, which bfloat16 has, the lowest."""
    mask = 2**_ID_BITS - 1
    columns = torch.arange(raw.shape[1], device=raw.device)
    # The column's complement below the value: a lower column makes the larger number.
    ranked = (order_images(raw) << _ID_BITS) | (columns ^ mask)
    lowest_first: torch.Tensor = ranked.topk(count, dim=1).values
    return lowest_first.bitwise_and_(mask).bitwise_xor_(mask)


def _logprobs(token_id: int, winner: int, details: torch.Tensor, limit: int) -> TokenLogprob:
    """Put the ranks' details [ranks, 3 + 2N] of one sequence together."""
    largest, totals = details[:, 1], details[:, 2]
    overall = largest.max()
    normaliser = float(overall + (totals * (largest - overall).exp()).sum().log())
    ids, values = details[:, 3:].chunk(2, dim=1)
    candidates = zip(values.flatten().tolist(), ids.flatten().long().tolist(), strict=True)
    likeliest = sorted(candidates, key=lambda candidate: (-candidate[0], candidate[1]))[:limit]
    return TokenLogprob(
        token_id,
        float(details[winner, 0]) - normaliser,
        tuple((token, value - normaliser) for value, token in likeliest),
    )
