"""What an engine counts. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A look at the engine.

    Attributes:
        running: choices being computed.
        waiting: choices that wait for room, or for their request's prompt to be computed.
        blocks_free: those included that idle in the prefix cache.
        prompt_tokens_total: prompt tokens prefilled, once per request whatever its ``n``; not those
            found in the prefix cache.
        generated_tokens_total: tokens drawn for all choices.
        unmetered_tokens_total: all kinds, of requests that nobody answers for; they are in no tally
            and in none of the other counts of tokens.
        last_token_at: ``clock`` when a token was last drawn; None before the first.
        step_seconds_total: spent in steps, from scheduling to the last token drawn.
        step_sequences_total: sequences computed, summed over steps.
        queried_tokens_total: prompt tokens looked up in the prefix cache, once per metered request.
        cached_tokens_total: those found there.
        drafted_tokens_total: guessed tokens that were computed.
        accepted_tokens_total: those that brought a token of the answer; the others were refused, or
            lay beyond its end.
        put_back_total: times that a choice lost its seat to another and began again later.
        recomputed_tokens_total: tokens computed again because of that.
    """

    running: int
    waiting: int
    blocks_total: int
    blocks_free: int
    prompt_tokens_total: int
    generated_tokens_total: int
    unmetered_tokens_total: int
    steps_total: int
    last_token_at: float | None
    step_seconds_total: float = 0.0
    step_sequences_total: int = 0
    queried_tokens_total: int = 0
    cached_tokens_total: int = 0
    drafted_tokens_total: int = 0
    accepted_tokens_total: int = 0
    put_back_total: int = 0
    recomputed_tokens_total: int = 0

    @property
    def rejected_tokens_total(self) -> int:
        """Guessed tokens that were computed for nothing."""
        return self.drafted_tokens_total - self.accepted_tokens_total

    @property
    def tallied(self) -> int:
        """Tokens of all tallies together: computed, or found in the prefix cache."""
        return (
            self.prompt_tokens_total
            + self.cached_tokens_total
            + self.generated_tokens_total
            + self.rejected_tokens_total
        )
