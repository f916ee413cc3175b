"""Top-k, top-p and min-p over a vocabulary that is cut over ranks, exactly, without gathering it.

A float32's bits, read as an integer and turned for negatives, keep the floats' order. The lowest
image that is kept is found digit by digit, from the highest (11, 11 and 10 bits): each rank adds
up what it holds of every digit, the ranks sum their histograms, and the digit at which the goal is
reached, counted from the top, is the threshold's. Goals are a number of ids (top-k) or a share of
probability (top-p). Ties at the threshold are all kept.

Probabilities are counted in whole units of 2**-44 of the likeliest id's: integers add up to the
same in any order, so neither the rank count nor a GPU's scheduling can move a threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from shards.comm import Communicator
from shards.step import SampleSpec

_DIGITS = ((21, 11), (10, 11), (0, 10))
_UNITS = 2.0**44  # 2**18 ids of the top one's weight still fit into 63 bits


def truncates(spec: SampleSpec) -> bool:
    return spec.draws.top_k > 0 or spec.draws.top_p < 1 or spec.draws.min_p > 0


def truncated(
    scores: torch.Tensor, specs: Sequence[SampleSpec], comm: Communicator
) -> torch.Tensor:
    """Scores with -inf for ids outside top-k, then top-p of what is left, then min-p.

    Args:
        scores: this rank's float32 [R, width], temperature applied.
    """
    images = torch.empty_like(scores, dtype=torch.int64)
    for part in _parts(scores):
        images[part] = order_images(scores[part])
    lowest = torch.zeros(len(specs), dtype=torch.int64, device=scores.device)
    if any(spec.draws.top_k for spec in specs):
        vocabulary = scores.shape[1] * comm.size
        keep = torch.tensor(
            [spec.draws.top_k or vocabulary for spec in specs], device=scores.device
        )
        lowest = _threshold(images, torch.ones_like(images), keep.minimum, comm)
    kept = images >= lowest.unsqueeze(1)
    if all(spec.draws.top_p == 1 and spec.draws.min_p == 0 for spec in specs):
        return scores.masked_fill(~kept, float("-inf"))

    best = comm.all_reduce(scores.amax(dim=1), "max").unsqueeze(1)
    if any(spec.draws.top_p < 1 for spec in specs):
        share = torch.tensor([spec.draws.top_p for spec in specs], dtype=torch.float64)
        share = share.to(scores.device)
        weights = torch.empty_like(images)
        for part in _parts(scores):
            units = (scores[part].double() - best[part]).exp_().mul_(_UNITS).round_()
            weights[part] = units.long().mul_(kept[part])
        nucleus = _threshold(images, weights, lambda total: (share * total).ceil().long(), comm)
        # Ids of no countable weight are outside every nucleus, yet inside the whole.
        kept &= images >= nucleus.where(share < 1, lowest).unsqueeze(1)
    min_p = torch.tensor([spec.draws.min_p for spec in specs], device=scores.device).unsqueeze(1)
    kept &= scores >= best + min_p.log()
    return scores.masked_fill(~kept, float("-inf"))


def order_images(scores: torch.Tensor) -> torch.Tensor:
    """float32 -> int64 in [0, 2**32), in the same order; -0 and 0 are one."""
    bits = (scores + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long().add_(2**31)


def _parts(values: torch.Tensor) -> list[slice]:
    """Rows to compute at once: on a CPU one, whose intermediate results then stay in its cache."""
    rows = len(values)
    return [slice(row, row + 1) for row in range(rows)] if values.is_cpu else [slice(0, rows)]


def _threshold(
    images: torch.Tensor,
    weights: torch.Tensor,
    goal_of: Callable[[torch.Tensor], torch.Tensor],
    comm: Communicator,
) -> torch.Tensor:
    """The highest image [R] at and above which the weights, over all ranks, reach the goal.

    Args:
        images, weights: int64 [R, width].
        goal_of: all weight [R] -> goal [R]; a goal above all weight is all of it.
    """
    prefix = torch.zeros(len(images), 1, dtype=torch.int64, device=images.device)
    missing: torch.Tensor | None = None
    parts = _parts(images)
    held = [(images[part], weights[part]) for part in parts]
    for shift, bits in _DIGITS:
        size = 2**bits
        histogram = images.new_zeros(len(images), size)
        for part, (image, weight) in zip(parts, held, strict=True):
            digits = (image >> shift).bitwise_and_(size - 1)
            # Only ids that share the digits found so far still count.
            counted = weight * (image >> (shift + bits) == prefix[part])
            histogram[part].scatter_add_(1, digits, counted)
        comm.all_reduce(histogram)
        # from_top[r, d] is the weight of digits d and above.
        from_top = histogram.flip(1).cumsum(1).flip(1)
        if missing is None:
            total = from_top[:, 0]
            missing = goal_of(total).clamp(min=1).minimum(total).unsqueeze(1)
        # Not a number reaches no goal; it must get as far as the sampler, which says so.
        digit = ((from_top >= missing).sum(1, keepdim=True) - 1).clamp(min=0)
        missing = missing - (from_top - histogram).gather(1, digit)
        prefix = (prefix << bits) | digit
        if images.is_cpu:
            # The rest need not be looked at again: mostly all but a few.
            inside = [
                image >> shift == prefix[part] for part, (image, _) in zip(parts, held, strict=True)
            ]
            held = [
                (image[kept].unsqueeze(0), weight[kept].unsqueeze(0))
                for (image, weight), kept in zip(held, inside, strict=True)
            ]
    return prefix.squeeze(1)
