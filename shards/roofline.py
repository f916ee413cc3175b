"""A runner without a model, for load tests: made-up tokens, in the time that hardware would need.

Where ``simulated.py`` checks every plan, this one costs as little as it can, O(sequences) a step,
so that what is measured is everything around the model. Standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING

from shards.batch import Batch
from shards.request import TokenLogprob
from shards.simulated import allows
from shards.step import Drawn, PictureKey, SampleSpec, StepPlan, nothing

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a group's GPUs do together at best: memory read and dense arithmetic, per second."""

    bytes_per_s: float
    flops_per_s: float


@dataclass(frozen=True, slots=True)
class Work:
    """What a decoder asks of it, per step (weights, read once) and per token."""

    weight_bytes: float
    flops_per_token: float
    kv_bytes_per_token: float


@dataclass(frozen=True, slots=True)
class Roofline:
    """The time that no implementation can beat."""

    work: Work
    hardware: Hardware

    def step_s(self, tokens: int, positions: int) -> float:
        """Weights are read while the arithmetic goes on; the cache of each sequence comes on top.

        Communication, kernel launches and attention's arithmetic are left out: it is a bound.

        Args:
            tokens: computed, of all sequences.
            positions: read from the cache, of all sequences, these tokens' own included.
        """
        work, hardware = self.work, self.hardware
        return (
            max(
                work.weight_bytes / hardware.bytes_per_s,
                tokens * work.flops_per_token / hardware.flops_per_s,
            )
            + positions * work.kv_bytes_per_token / hardware.bytes_per_s
        )


def a100s(count: int) -> Hardware:
    """A100 80GB SXM by its data sheet: 2,039 GB/s, 312 TFLOP/s in bfloat16."""
    return Hardware(count * 2.039e12, count * 312e12)


def pixtral_large(bytes_per_weight: float) -> Work:
    """Its decoder but for the embedding table, of which a step reads a few rows; KV in bfloat16."""
    return Work(
        weight_bytes=LARGE_DECODER_WEIGHTS * bytes_per_weight,
        flops_per_token=2.0 * LARGE_DECODER_WEIGHTS,
        kv_bytes_per_token=360_448,
    )


LARGE_DECODER_WEIGHTS = 122_207_416_320
# By the names of the profiles (ops/profiles) that they bound. INT4 has a 2-byte scale per 128.
ROOFLINES: Mapping[str, Roofline] = {
    "pixtral-large-bf16-4xa100": Roofline(pixtral_large(2), a100s(4)),
    "pixtral-large-int8-2xa100": Roofline(pixtral_large(1), a100s(2)),
    "pixtral-large-int4-1xa100": Roofline(pixtral_large(0.5 + 2 / 128), a100s(1)),
}


class RooflineRunner:
    """Answers every sequence at once, or when ``roofline`` says that hardware could have.

    Tokens depend on seed, choice and index alone, so an answer goes on elsewhere as it would have
    here. None of them ends an answer, and neither bias nor bans nor stop tokens sway them; under a
    grammar they are the first that it allows.

    Args:
        token_ids: what answers are made of.
        roofline: None for no time at all.
        clock, sleep: in seconds.
    """

    def __init__(
        self,
        token_ids: Sequence[int],
        roofline: Roofline | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not token_ids:
            raise ValueError("token_ids must not be empty")
        self._token_ids = tuple(token_ids)
        self._roofline = roofline
        self._clock = clock
        self._sleep = sleep
        self._overslept = 0.0
        # Pictures make no difference here, so no id stands for one.
        self._batch = Batch(image_token_id=-1)

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        """Nothing is kept of it."""

    def drop_picture(self, key: PictureKey) -> None:
        """There is none."""

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> list[Drawn]:
        started = self._clock()
        works = self._batch.apply(plan)
        drawn = [self._draw(sample) for work in works for sample in work.samples]
        meanwhile()
        if self._roofline is not None:
            tokens = sum(work.count for work in works)
            positions = sum(work.start + work.count for work in works)
            self._sleep_until(started + self._roofline.step_s(tokens, positions))
        return self._batch.accept(works, drawn)

    def close(self) -> None:
        """There is nobody to release."""

    def _draw(self, sample: SampleSpec) -> TokenLogprob:
        # Weyl sequences of odd 64-bit constants, and the high bits of their product.
        mixed = (sample.draws.seed + 0x9E3779B97F4A7C15 * (sample.index + 1)) ^ (
            sample.draws.choice << 40
        )
        mixed = mixed * 0xD1B54A32D192ED03 & 0xFFFFFFFFFFFFFFFF
        token_id = self._token_ids[(mixed >> 32) % len(self._token_ids)]
        if not allows(sample.mask, token_id):
            token_id = _first_allowed(sample.mask)
        if sample.draws.logprobs is None:
            return TokenLogprob(token_id, nan)
        # It was certain.
        return TokenLogprob(token_id, 0.0, ((token_id, 0.0),) if sample.draws.logprobs else ())

    def _sleep_until(self, due: float) -> None:
        """Sleeping ends late by a fraction of a millisecond, which the next step gives back."""
        due -= self._overslept
        self._overslept = 0.0
        rest = due - self._clock()
        if rest > 0:
            self._sleep(rest)
            self._overslept = max(self._clock() - due, 0.0)


def _first_allowed(mask: bytes) -> int:
    byte = next(index for index, value in enumerate(mask) if value)
    return 8 * byte + (mask[byte] & -mask[byte]).bit_length() - 1
