"""Gumbel noise by hashing, so that a draw depends on nothing but what it is for.

For seed, choice, output index and vocabulary id v, all arithmetic modulo 2**64:

    mix(z):  z ^= z >> 30;  z *= 0xBF58476D1CE4E5B9
             z ^= z >> 27;  z *= 0x94D049BB133111EB
             z ^= z >> 31                                   (SplitMix64's finaliser)
    G     =  0x9E3779B97F4A7C15
    key   =  mix(mix(mix(seed + G) + choice + G) + index + G)
    h(v)  =  mix(key + (v + 1) * G)                         (SplitMix64's stream, started at key)
    u(v)  =  ((h(v) >> 12) + 1/2) / 2**52                   (a float64, exact, inside (0, 1))
    g(v)  =  -log(-log(u(v)))

Adding g(v) to logits and taking the largest draws from their softmax. Every rank computes the
noise of its own ids; a restarted group computes the same again.

On a CPU the logarithms are spared to all ids that cannot win. With E(v) = -log(u(v)), a score
s(v) + g(v) reaches a bound B exactly when E(v) <= exp(s(v) - B), and 1 - u(v) <= E(v), whose upper
bits are those of the hash. B is set so that some e**3 ids are expected to reach it; noise is
computed for those only, and if none does after all (once in e**(e**3) draws), for every id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

Draw = tuple[int, int, int]

GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1
_MARGIN = 3.0
_BLOCK = 2**15  # ids whose hashes stay in a core's own cache


def gumbel(
    draws: Sequence[Draw], vocab_start: int, width: int, device: torch.device
) -> torch.Tensor:
    """Noise float64 [len(draws), width] for ids vocab_start .. vocab_start + width - 1.

    Args:
        draws: (seed, choice, output index) of each row.
    """
    return _gumbel(draws, torch.arange(vocab_start, vocab_start + width, device=device))


def largest(
    scores: torch.Tensor, draws: Sequence[Draw], vocab_start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each row of scores with noise added; among equals the lowest id's.

    Args:
        scores: float32 [R, width] of ids from ``vocab_start`` on.

    Returns:
        scores with noise float64 [R], and their columns int64 [R].
    """
    if scores.device.type != "cpu":
        values, columns = _all(scores, draws, vocab_start)
        return values, columns
    found = [
        _of_few(row, draw, vocab_start) or _all(row.unsqueeze(0), [draw], vocab_start)
        for row, draw in zip(scores, draws, strict=True)
    ]
    return torch.cat([value for value, _ in found]), torch.cat([column for _, column in found])


def _all(
    scores: torch.Tensor, draws: Sequence[Draw], vocab_start: int
) -> tuple[torch.Tensor, torch.Tensor]:
    noise = gumbel(draws, vocab_start, scores.shape[1], scores.device)
    values, columns = (scores.double() + noise).max(dim=1)
    return values, columns


def _of_few(
    scores: torch.Tensor, draw: Draw, vocab_start: int
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """``_all`` of one row [width], by way of the bound; None where no id reaches it."""
    highest = float(scores.max())
    if not math.isfinite(highest):
        return None
    weights = (scores - highest).exp_()
    total = float(weights.sum())
    bound = highest + math.log(total) - _MARGIN
    # exp(s - B) in units of 2**-32, and more than all errors of float32 and of the hash's end.
    reach = weights.mul_(math.exp(_MARGIN) / total * 2.0**32 * 1.0001).add_(4.0)
    columns = torch.from_numpy(_reaching(reach.numpy(), _key(*draw), vocab_start))
    if not len(columns):
        return None
    noisy = scores[columns].double() + _gumbel([draw], columns + vocab_start)[0]
    value, place = noisy.max(dim=0, keepdim=True)
    if float(value) < bound:
        return None
    return value, columns[place]


def _reaching(reach: np.ndarray, key: int, vocab_start: int) -> np.ndarray:
    """Columns whose 1 - u, in units of 2**-32, does not exceed ``reach`` float32 [width]."""
    steps = _steps(vocab_start, len(reach))
    found = []
    hashes, shifted = np.empty((2, _BLOCK), np.uint64)
    inverse = np.empty(_BLOCK, np.uint32)
    for start in range(0, len(reach), _BLOCK):
        part = steps[start : start + _BLOCK]
        z, t = hashes[: len(part)], shifted[: len(part)]
        np.add(part, np.uint64(key), out=z)
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            np.right_shift(z, np.uint64(shift), out=t)
            np.bitwise_xor(z, t, out=z)
            np.multiply(z, np.uint64(factor), out=z)
        # What is left of the mixing, z ^= z >> 31, changes no bit above the lowest of this half.
        complement = np.invert(z.view(np.uint32)[1::2], out=inverse[: len(part)])
        reached = complement.astype(np.float32) <= reach[start : start + len(part)]
        found.append(np.flatnonzero(reached) + start)
    return np.concatenate(found)


@lru_cache(maxsize=4)
def _steps(vocab_start: int, width: int) -> np.ndarray:
    """(v + 1) * G of a rank's ids."""
    ids = np.arange(vocab_start + 1, vocab_start + width + 1, dtype=np.uint64)
    steps: np.ndarray = ids * np.uint64(GOLDEN)
    return steps


def _gumbel(draws: Sequence[Draw], ids: torch.Tensor) -> torch.Tensor:
    """Noise float64 [len(draws), N] for ids [N]."""
    keys = torch.tensor([_signed(_key(*draw)) for draw in draws], device=ids.device)
    bits = _mix_(keys.unsqueeze(1) + (ids + 1) * _signed(GOLDEN))
    uniform = _shifted(bits, 12).double().add_(0.5).mul_(2.0**-52)
    return uniform.log_().neg_().log_().neg_()


def _key(seed: int, choice: int, index: int) -> int:
    state = 0
    for word in (seed, choice, index):
        state = _mix_int((state + word + GOLDEN) & _MASK)
    return state


def _mix_int(z: int) -> int:
    z = ((z ^ (z >> 30)) * _FIRST) & _MASK
    z = ((z ^ (z >> 27)) * _SECOND) & _MASK
    return z ^ (z >> 31)


def _mix_(z: torch.Tensor) -> torch.Tensor:
    """In place: at this size a fresh tensor costs more than the arithmetic."""
    z.bitwise_xor_(_shifted(z, 30)).mul_(_signed(_FIRST))
    z.bitwise_xor_(_shifted(z, 27)).mul_(_signed(_SECOND))
    return z.bitwise_xor_(_shifted(z, 31))


def _shifted(z: torch.Tensor, by: int) -> torch.Tensor:
    """Logical right shift: torch's own drags the sign bit along."""
    return (z >> by).bitwise_and_(2 ** (64 - by) - 1)


def _signed(z: int) -> int:
    """The int64 with the same bits; multiplying wraps around alike."""
    return z - 2**64 if z >= 2**63 else z
