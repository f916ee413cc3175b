"""A simulated model that mostly says again what was said before, so that drafts come true."""

from __future__ import annotations

from collections.abc import Sequence

from shards.simulated import NextToken, allows, hashed
from shards.step import SampleSpec


def repeating(vocab_size: int) -> NextToken:
    """What followed the last two tokens where they last stood; else, and one time in nine, new."""
    new = hashed(vocab_size)

    def next_token(tokens: Sequence[int], sample: SampleSpec) -> int:
        fresh = new(tokens, sample)
        if fresh % 9 == 0:
            return fresh
        for end in range(len(tokens) - 1, 1, -1):
            if list(tokens[end - 2 : end]) == list(tokens[-2:]):
                again = tokens[end]
                if again < 0 or again in sample.banned or not allows(sample.mask, again):
                    break
                return again
        return fresh

    return next_token
