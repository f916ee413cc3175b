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
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MASK = 2**64 - 1


def gumbel(
    draws: Sequence[tuple[int, int, int]], vocab_start: int, width: int, device: torch.device
) -> torch.Tensor:
    """Noise float64 [len(draws), width] for ids vocab_start .. vocab_start + width - 1.

    Args:
        draws: (seed, choice, output index) of each row.
    """
    keys = torch.tensor([_signed(_key(*draw)) for draw in draws], device=device)
    ids = torch.arange(vocab_start + 1, vocab_start + width + 1, device=device)
    bits = _mix_(keys.unsqueeze(1) + ids * _signed(GOLDEN))
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
