"""What one forward step computes, and the protocol of those who compute it. Standard library only.

A step is schedule → run → postprocess. The scheduler makes a ``StepPlan``; every rank runs the
same plan on its share of the weights and ends with the same sampled tokens.

    position          0 1 2 3 4 5 6 7 8      block size 4, block table (7, 2, 5)
    in block          7 7 7 7 2 2 2 2 5
    slot (flat)      28 . . 31 8 . . 11 20
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shards.request import TokenLogprob

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class PictureKey:
    """A picture's features held by the ranks, from admission until its rows are prefilled."""

    request_id: str
    index: int


@dataclass(frozen=True, slots=True)
class PictureRows:
    """Feature rows [start, stop) of a picture, written at this chunk's next [IMG] positions."""

    key: PictureKey
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """How to draw one sequence's next token.

    Attributes:
        index: 0-based index of the token among the choice's output.
        output_counts: (token id, times generated) for the penalties; empty when none is set.
        prompt_ids: distinct prompt ids for the repetition penalty; empty when it is 1.
        banned: ids that may not be drawn (end of sequence under ``min_tokens`` or ``ignore_eos``,
            and ids no answer may ever contain).
    """

    seed: int
    choice: int
    index: int
    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    output_counts: tuple[tuple[int, int], ...] = ()
    prompt_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned: tuple[int, ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """One sequence's part of a step.

    Attributes:
        token_ids: computed in this step; at least one.
        start: position of the first of them; everything before is in the KV cache.
        block_table: ids of the blocks that hold positions [0, start + len(token_ids)).
        pictures: feature rows for the [IMG] ids among ``token_ids``, in order.
        sample: None while the prompt is not wholly prefilled.
    """

    token_ids: tuple[int, ...]
    start: int
    block_table: tuple[int, ...]
    pictures: tuple[PictureRows, ...] = ()
    sample: SampleSpec | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    sequences: tuple[SequenceStep, ...]

    @property
    def tokens(self) -> int:
        return sum(len(sequence.token_ids) for sequence in self.sequences)


class Runner(Protocol):
    """Runs step plans: one rank's model, a whole group behind its leader, or a simulation."""

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        """Hold vision features [patches, vision hidden] (before the projector) until dropped."""

    def drop_picture(self, key: PictureKey) -> None:
        """Forget a picture; unknown keys are fine."""

    def run(self, plan: StepPlan) -> Sequence[TokenLogprob]:
        """Compute a step.

        Returns:
            the drawn token of each sequence that has a ``sample``, in the plan's order;
            ``logprob`` is NaN where none was asked for.

        Raises:
            GroupError: a rank died or did not answer in time.
        """

    def close(self) -> None:
        """Release the ranks."""
