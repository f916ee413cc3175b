"""A request being answered, and its choices. Standard library only.

A choice's tokens are its prompt followed by its output; ``computed`` of them are in the KV cache.
Prefill and decode are the same thing: compute what is missing, and draw a token when nothing is.

Choice 0 prefills the prompt. The others start from its full blocks and compute only the rest of
the prompt again (at least its last token, whose logits they draw from), so no block is ever
written by two choices:

    prompt of 10, block size 4      0 1 2 3 | 4 5 6 7 | 8 9
    shared by all choices           `---- blocks ----'
    computed by every choice                            8 9
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards.request import FinishReason, GenerationRequest, Timing
from shards.step import PictureKey, PictureRows, SampleSpec, SequenceStep
from shards.tally import Tally

if TYPE_CHECKING:
    from shards.detokenizer import TextStream


class Choice:
    """One of the ``n`` answers in the making.

    Attributes:
        output: tokens drawn so far.
        computed: positions [0, computed) are in the KV cache.
        block_table: blocks that hold them.
        text: finds stop strings; None when the request has none.
    """

    def __init__(
        self, generation: Generation, index: int, computed: int, text: TextStream | None
    ) -> None:
        self.generation = generation
        self.index = index
        self.output: list[int] = []
        self.computed = computed
        self.block_table: list[int] = []
        self.text = text
        self.finish_reason: FinishReason | None = None
        self._output_counts: Counter[int] = Counter()

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one can be drawn; 1 while decoding."""
        return len(self.generation.request.prompt) + len(self.output) - self.computed

    @property
    def tally(self) -> Tally:
        """What was computed for it so far; the prompt counts with choice 0."""
        generation = self.generation
        prompt = generation.prompt_tokens if self.index == 0 else 0
        image = generation.image_tokens if self.index == 0 else 0
        return Tally(
            generation.request.request_id,
            generation.request.attempt,
            self.index,
            text=prompt - image,
            image=image,
            output=len(self.output),
        )

    def append(self, token_id: int) -> None:
        self.output.append(token_id)
        self._output_counts[token_id] += 1

    def step(self, count: int) -> SequenceStep:
        """Compute the next ``count`` tokens; a token is drawn when none is missing then."""
        start, stop = self.computed, self.computed + count
        return SequenceStep(
            token_ids=self._tokens(start, stop),
            start=start,
            block_table=tuple(self.block_table),
            pictures=self.generation.picture_rows(start, stop),
            sample=self._sample_spec() if count == self.missing else None,
        )

    def _tokens(self, start: int, stop: int) -> tuple[int, ...]:
        prompt = self.generation.request.prompt
        output = self.output[max(start - len(prompt), 0) : max(stop - len(prompt), 0)]
        return (*prompt[start:stop], *output)

    def _sample_spec(self) -> SampleSpec:
        generation, sampling = self.generation, self.generation.request.sampling
        index = len(self.output)
        penalised = (
            sampling.repetition_penalty != 1
            or sampling.presence_penalty != 0
            or sampling.frequency_penalty != 0
        )
        return SampleSpec(
            seed=sampling.seed,
            choice=self.index,
            index=index,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            output_counts=tuple(self._output_counts.items()) if penalised else (),
            prompt_ids=generation.penalised_prompt_ids,
            logit_bias=sampling.logit_bias,
            banned=generation.banned_early if index < sampling.min_tokens else generation.banned,
            logprobs=sampling.logprobs,
        )


class Generation:
    """A request's state from its arrival to the end of its last choice.

    Args:
        image_positions: where the prompt holds [IMG], ascending; one per row of the pictures'
            features, in order.
        banned: ids that may never be drawn.
        banned_early: ids that may not be drawn before ``min_tokens``.
        texts: for each choice, the finder of its stop strings, or None.
        metered: whether somebody is to answer for what it costs.
        arrived_at: seconds on the engine's clock.

    Attributes:
        started_at, first_token_at, last_token_at: on the same clock, set by the engine.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        block_size: int,
        image_positions: Sequence[int] = (),
        banned: tuple[int, ...] = (),
        banned_early: tuple[int, ...] = (),
        texts: Sequence[TextStream | None] | None = None,
        metered: bool = True,
        arrived_at: float = 0.0,
    ) -> None:
        self.arrived_at = arrived_at
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.request = request
        self.metered = metered
        self.banned = banned
        self.banned_early = banned_early
        sampling = request.sampling
        self.penalised_prompt_ids = (
            tuple(sorted(set(request.prompt))) if sampling.repetition_penalty != 1 else ()
        )
        # The last token drawn is never computed, so it needs no room.
        positions = len(request.prompt) + sampling.max_tokens - 1
        self.blocks_per_choice = -(-positions // block_size)
        self.shared_blocks = (len(request.prompt) - 1) // block_size
        self.choices = [
            Choice(
                self,
                index,
                computed=self.shared_blocks * block_size if index else 0,
                text=texts[index] if texts else None,
            )
            for index in range(sampling.n)
        ]
        self.forked = False
        self._image_positions = image_positions
        self._held_pictures = list(range(len(request.pictures)))

    @property
    def unfinished(self) -> list[Choice]:
        return [choice for choice in self.choices if choice.finish_reason is None]

    @property
    def ready(self) -> list[Choice]:
        """Choices that can be computed now: the first alone until the prompt is prefilled."""
        return self.unfinished if self.forked else self.choices[:1]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt computed so far; choice 0 computes them for all."""
        return min(self.choices[0].computed, len(self.request.prompt))

    @property
    def image_tokens(self) -> int:
        """Of ``prompt_tokens``, those of pictures: patches, row breaks and ends."""
        computed, tokens, offset = self.prompt_tokens, 0, 0
        for picture in self.request.pictures:
            start = self._image_positions[offset]
            tokens += min(max(computed - start, 0), picture.grid.tokens)
            offset += picture.grid.patches
        return tokens

    @property
    def timing(self) -> Timing:
        return Timing(self.arrived_at, self.started_at, self.first_token_at, self.last_token_at)

    @property
    def blocks_owed(self) -> int:
        """Most blocks that the unfinished choices may still have to take from the cache."""
        return sum(
            self.blocks_per_choice
            - max(len(choice.block_table), self.shared_blocks if choice.index else 0)
            for choice in self.unfinished
        )

    def picture_rows(self, start: int, stop: int) -> tuple[PictureRows, ...]:
        """Feature rows that belong at the [IMG] ids among positions [start, stop)."""
        first = bisect_left(self._image_positions, start)
        last = bisect_left(self._image_positions, stop)
        rows, offset = [], 0
        for index, picture in enumerate(self.request.pictures):
            low = max(first - offset, 0)
            high = min(last - offset, picture.grid.patches)
            if low < high:
                rows.append(PictureRows(PictureKey(self.request.request_id, index), low, high))
            offset += picture.grid.patches
        return tuple(rows)

    def let_go_pictures(self) -> tuple[PictureKey, ...]:
        """Pictures that no choice will read again, each told once."""
        needed_from = min((choice.computed for choice in self.unfinished), default=None)
        ends, offset = [], 0
        for picture in self.request.pictures:
            offset += picture.grid.patches
            ends.append(self._image_positions[offset - 1])
        done = [i for i in self._held_pictures if needed_from is None or ends[i] < needed_from]
        self._held_pictures = [i for i in self._held_pictures if i not in done]
        return tuple(PictureKey(self.request.request_id, index) for index in done)
