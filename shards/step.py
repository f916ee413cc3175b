"""What one forward step computes, and the protocol of those who compute it. Standard library only.

A step is schedule → run → postprocess. The scheduler makes a ``StepPlan``; every rank runs the
same plan on its share of the weights and ends with the same sampled tokens.

A plan tells only what changed. Every rank keeps a mirror of the running sequences (``Batch`` in
batch.py), in which a sequence that decodes needs no words: it computes the token that the ranks
themselves have just drawn. So a plan's size does not grow with the batch.

    position          0 1 2 3 4 5 6 7 8      block size 4, block table (7, 2, 5)
    in block          7 7 7 7 2 2 2 2 5
    slot (flat)      28 . . 31 8 . . 11 20
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
class PictureSpan:
    """A picture of a sequence: its next ``patches`` [IMG] ids take the rows of its features."""

    key: PictureKey
    patches: int


@dataclass(frozen=True, slots=True)
class PictureRows:
    """Feature rows [start, stop) of a picture, written at this chunk's next [IMG] positions."""

    key: PictureKey
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Draws:
    """How to draw a sequence's tokens, for all of its answer (see ``Sampling``).

    Attributes:
        banned: ids that may never be drawn.
        banned_early: ids that may not be drawn before ``min_tokens`` (a superset of ``banned``).
        prompt_ids: distinct prompt ids for the repetition penalty; empty when it is 1.
    """

    seed: int
    choice: int
    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    prompt_ids: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    min_tokens: int = 0
    banned: tuple[int, ...] = ()
    banned_early: tuple[int, ...] = ()
    logprobs: int | None = None

    @property
    def penalised(self) -> bool:
        """Whether it matters what was drawn before."""
        return (
            self.repetition_penalty != 1
            or self.presence_penalty != 0
            or self.frequency_penalty != 0
        )


@dataclass(frozen=True, slots=True)
class SampleSpec:
    """How to draw one token: a sequence's ``Draws`` at one place of its answer.

    Attributes:
        index: 0-based index of the token among the choice's output.
        output_counts: (token id, times generated) for the penalties; empty when none is set.
        mask: one bit per vocabulary id, in little-endian 32-bit words (bit i of word w is id
            32 w + i): what a grammar allows here; empty where it allows everything.
    """

    draws: Draws
    index: int
    output_counts: tuple[tuple[int, int], ...] = ()
    mask: bytes = b""

    @property
    def banned(self) -> tuple[int, ...]:
        """Ids that may not be drawn here (end of sequence under ``min_tokens`` or ``ignore_eos``,
        and ids no answer may ever contain)."""
        early = self.index < self.draws.min_tokens
        return self.draws.banned_early if early else self.draws.banned


@dataclass(frozen=True, slots=True)
class Begin:
    """A choice enters the batch, or enters it again after it was put back.

    Attributes:
        row: its name in this and later plans until one lists it as ended; free again then. A plan
            may end a row and begin another of the same name.
        token_ids: all that are known: the prompt, then what was drawn so far.
        computed: positions [0, computed) are in the KV cache already; fewer than the tokens.
        block_table: ids of the blocks that hold positions from 0 on, as far as known.
        draws: how to draw its tokens.
        drawn: how many of ``token_ids`` were drawn.
        pictures: in the order of the prompt's [IMG] ids, all of them.
    """

    row: int
    token_ids: tuple[int, ...]
    computed: int
    block_table: tuple[int, ...]
    draws: Draws
    drawn: int = 0
    pictures: tuple[PictureSpan, ...] = ()


@dataclass(frozen=True, slots=True)
class Advance:
    """A sequence's part of a step, where more is to be said than "one token more".

    Attributes:
        count: tokens that are computed, from the first uncomputed one on, drafts included; 0 to
            skip this step.
        blocks: appended to its block table before.
        drafts: guesses at the tokens that follow the last known one. A draft is accepted when it
            is the token that would have been drawn in its place; the first that is not, and all
            after it, are forgotten.
        masks: what a grammar allows at each of the ``1 + len(drafts)`` draws; none for everything.
    """

    row: int
    count: int
    blocks: tuple[int, ...] = ()
    drafts: tuple[int, ...] = ()
    masks: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step: rows end, others begin, then all that are live are computed.

    A live row without an ``Advance`` computes one token if that is all it misses (it decodes), and
    nothing if it misses more. When a row's last known token is computed, tokens are drawn: one,
    and one more for each draft accepted.
    """

    ended: tuple[int, ...] = ()
    begun: tuple[Begin, ...] = ()
    advances: tuple[Advance, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """The tokens that a row drew in a step, at least one; the ranks' mirrors hold them already."""

    row: int
    tokens: tuple[TokenLogprob, ...]


def nothing() -> None:
    """What a runner does meanwhile unless told otherwise."""


class Runner(Protocol):
    """Runs step plans: one rank's model, a whole group behind its leader, or a simulation."""

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        """Hold vision features [patches, vision hidden] (before the projector) until dropped."""

    def drop_picture(self, key: PictureKey) -> None:
        """Forget a picture; unknown keys are fine."""

    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> Sequence[Drawn]:
        """Compute a step.

        Args:
            meanwhile: called once, when the device has its work and before it is waited for.

        Returns:
            what each row drew that computed its last known token, in the batch's order (that in
            which rows began); ``logprob`` is NaN where none was asked for.

        Raises:
            GroupError: a rank died or did not answer in time.
        """

    def close(self) -> None:
        """Release the ranks."""
