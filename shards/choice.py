"""One of a request's answers in the making. Standard library only.

A choice's tokens are its prompt followed by its output; ``computed`` of them are in the KV cache.
Prefill and decode are the same thing: compute what is missing, and draw a token when nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shards.drafts import Proposer
from shards.request import Delta, FinishReason, TokenLogprob
from shards.step import Begin, Draws
from shards.tally import Tally

if TYPE_CHECKING:
    from shards.constraint import Matcher
    from shards.detokenizer import TextStream
    from shards.generation import Generation
    from shards.prefix_cache import Chain


class Choice:
    """One of the ``n`` answers.

    Attributes:
        output: tokens drawn so far.
        text: finds stop strings; None when the request has none.
        matcher: its place in the request's grammar; None when the request has none.
        proposer: guesses its next tokens; None when nothing is to be guessed.
        chain: names its blocks in the prefix cache.

    Where it is seated:
        row: its name in the ranks' batch; None without a seat.
        told: whether the ranks have heard of that.
        block_table: blocks that hold its tokens, and perhaps some to come.
        computed: positions [0, computed) are in the KV cache.
        found: of these, those that were when it was seated.
        named: blocks of the table that the prefix cache knows.
        fresh: blocks at the end of the table that the ranks have not heard of.
        owed: prompt tokens that its team is still to be served.

    Where it waits:
        waits: whether it does.
        waits_since: seatings of all choices, when it first did.
        level: its priority, risen by waiting.

    Over all its seats:
        reached: the most that ``computed`` ever was.
        served: tokens of the output that its team's counter knows.
        rejected_drafts: guessed tokens that were computed for nothing.
        put_back: whether it lost its seat for another team's sake since it last drew.

    In the step that was planned last:
        planned: tokens computed, drafts included.
        drafts: those.
    """

    def __init__(
        self, generation: Generation, index: int, text: TextStream | None, chain: Chain
    ) -> None:
        self.generation = generation
        self.index = index
        self.output: list[int] = []
        self.text = text
        self.matcher: Matcher | None = None
        self.proposer: Proposer | None = None
        self.chain = chain
        self.finish_reason: FinishReason | None = None
        self.row: int | None = None
        self.told = False
        self.block_table: list[int] = []
        self.computed = 0
        self.found = 0
        self.named = 0
        self.fresh: list[int] = []
        self.owed = 0
        self.waits = False
        self.waits_since: int | None = None
        self.level = 0
        self.reached = 0
        self.served = 0
        self.rejected_drafts = 0
        self.put_back = False
        self.planned = 0
        self.drafts: tuple[int, ...] = ()

    @property
    def known(self) -> int:
        """Tokens of prompt and output."""
        return len(self.generation.request.prompt) + len(self.output)

    @property
    def missing(self) -> int:
        """Tokens to compute before the next one can be drawn; 1 while decoding."""
        return self.known - self.computed

    @property
    def left(self) -> int:
        """Tokens that may still be drawn."""
        return self.generation.request.sampling.max_tokens - len(self.output)

    @property
    def draws(self) -> bool:
        """Whether it draws in the step that was planned last."""
        return self.planned == self.missing + len(self.drafts)

    @property
    def tally(self) -> Tally:
        """What was computed for it so far; the prompt counts with choice 0."""
        generation, request = self.generation, self.generation.request
        output, rejected = len(self.output), self.rejected_drafts
        if self.index:
            return Tally(
                request.request_id,
                request.attempt,
                self.index,
                output=output,
                rejected_draft=rejected,
            )
        image, cached_image = generation.image_tokens, generation.cached_image_tokens
        text = generation.prompt_tokens - image
        cached_text = generation.cached_tokens - cached_image
        return Tally(
            request.request_id,
            request.attempt,
            self.index,
            text=text - cached_text,
            image=image - cached_image,
            cached_text=cached_text,
            cached_image=cached_image,
            output=output,
            rejected_draft=rejected,
        )

    def delta(self, drawn: tuple[TokenLogprob, ...] = (), stop: str | int | None = None) -> Delta:
        """Tokens that were just added to its output, with all that is counted so far."""
        generation, request = self.generation, self.generation.request
        return Delta(
            request_id=request.request_id,
            choice=self.index,
            token_ids=tuple([token.token_id for token in drawn]),
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=len(self.output),
            finish_reason=self.finish_reason,
            logprobs=drawn if request.sampling.logprobs is not None else (),
            stop=stop,
            image_tokens=generation.image_tokens,
            cached_tokens=generation.cached_tokens,
            cached_image_tokens=generation.cached_image_tokens,
            attempt=request.attempt,
            timing=None if self.finish_reason is None else generation.timing,
        )

    def tokens(self, start: int, stop: int) -> Sequence[int]:
        """Those known at positions [start, stop)."""
        prompt = self.generation.request.prompt
        if stop <= len(prompt):
            return prompt[start:stop]
        output = self.output[max(start - len(prompt), 0) : stop - len(prompt)]
        return [*prompt[start:], *output]

    def begin(self) -> Begin:
        """What the ranks are told when it is seated."""
        assert self.row is not None
        return Begin(
            self.row,
            (*self.generation.request.prompt, *self.output),
            self.computed,
            tuple(self.block_table),
            self._draws(),
            len(self.output),
            self.generation.spans,
        )

    def masks(self, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """What its grammar allows at the next draws; it may refuse drafts (see ``Matcher``).

        A grammar that allows nothing is at fault, and no reason for the ranks to fail: drafts end
        before that place, and what is drawn there freely it refuses, which ends this choice alone.
        """
        if self.matcher is None:
            return ()
        masks = self.matcher.masks(drafts)
        for place, mask in enumerate(masks):
            if mask and not mask.strip(b"\0"):
                return masks[:place] or (b"",)
        return masks

    def learn(self, limit: int) -> int:
        """Let its proposer know more of its tokens; how many."""
        if self.proposer is None:
            return 0
        start = len(self.proposer)
        stop = min(self.known, start + limit)
        self.proposer.learn(self.tokens(start, stop))
        return stop - start

    def propose(self, limit: int) -> tuple[int, ...]:
        """Drafts, once the proposer knows all tokens."""
        if self.proposer is None or len(self.proposer) < self.known:
            return ()
        return self.proposer.propose(limit)

    def _draws(self) -> Draws:
        generation, sampling = self.generation, self.generation.request.sampling
        return Draws(
            seed=sampling.seed,
            choice=self.index,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            prompt_ids=generation.penalised_prompt_ids,
            logit_bias=sampling.logit_bias,
            min_tokens=sampling.min_tokens,
            banned=generation.banned,
            banned_early=generation.banned_early,
            logprobs=sampling.logprobs,
        )
