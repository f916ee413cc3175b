"""Which tokens of which choices the next step computes. Standard library only.

Continuous batching: every step takes one token of each choice that is decoding, then fills what
is left of ``max_step_tokens`` with chunks of prompts, oldest request first. A request starts when
the KV cache has room for the longest answers it may give, so nothing that runs is ever put back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from shards.blocks import BlockAllocator
from shards.errors import ContextLengthError, QueueFullError, RequestError
from shards.generation import Choice, Generation
from shards.step import StepPlan


@dataclass(frozen=True, slots=True)
class Limits:
    """What the cache and a step hold.

    Attributes:
        max_context_tokens: most tokens of prompt and answer together.
        max_batch_sequences: most choices that run at once.
        max_step_tokens: most tokens that one step computes, at least ``max_batch_sequences``.
        max_waiting: most requests that wait for room.
    """

    num_blocks: int
    block_size: int
    max_context_tokens: int
    max_batch_sequences: int
    max_step_tokens: int
    max_waiting: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_step_tokens < self.max_batch_sequences:
            raise ValueError(
                f"max_step_tokens {self.max_step_tokens} is below max_batch_sequences "
                f"{self.max_batch_sequences}: a full batch could not decode"
            )


@dataclass(frozen=True, slots=True)
class Schedule:
    """A step's plan and, for each of its sequences, the choice it belongs to."""

    plan: StepPlan
    choices: tuple[Choice, ...]


class Scheduler:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.blocks = BlockAllocator(limits.num_blocks)
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []

    def add(self, generation: Generation) -> None:
        """Seat a request if there is room, else let it wait.

        Raises:
            ContextLengthError: it could never run; the numbers are given.
            RequestError: it asks for more choices than run at once.
            QueueFullError: ``max_waiting`` requests wait already.
        """
        self._refuse_impossible(generation)
        self.waiting.append(generation)
        self._seat()
        if len(self.waiting) > self.limits.max_waiting:
            self.waiting.pop()
            raise QueueFullError(f"{self.limits.max_waiting} requests wait already")

    def schedule(self) -> Schedule:
        """The next step; empty when nothing runs."""
        self._seat()
        steps, choices = [], []
        budget = self.limits.max_step_tokens
        ready = [choice for generation in self.running for choice in generation.ready]
        # Stable: decoding choices first, then prompts in the order of their arrival.
        for choice in sorted(ready, key=lambda choice: choice.missing > 1):
            count = min(choice.missing, budget)
            if count == 0:
                break
            self._grow(choice, choice.computed + count)
            steps.append(choice.step(count))
            choices.append(choice)
            budget -= count
        return Schedule(StepPlan(tuple(steps)), tuple(choices))

    def advance(self, choice: Choice, count: int) -> None:
        """Note that ``count`` more tokens are in the cache; the other choices may follow now."""
        choice.computed += count
        generation = choice.generation
        if not generation.forked and choice.missing == 0:
            generation.forked = True
            shared = choice.block_table[: generation.shared_blocks]
            for other in generation.choices[1:]:
                self.blocks.share(shared)
                other.block_table = list(shared)

    def finish(self, choice: Choice) -> None:
        """Free a choice's blocks at once; its request leaves with the last of them."""
        self.blocks.release(choice.block_table)
        choice.block_table = []
        if not choice.generation.unfinished:
            self.running.remove(choice.generation)

    def withdraw(self, generation: Generation) -> None:
        """Forget a request that waits."""
        self.waiting.remove(generation)

    def check(self) -> None:
        """Raises BlockAccountingError when a block is leaked or doubly used."""
        self.blocks.check(
            choice.block_table for generation in self.running for choice in generation.choices
        )

    def _seat(self) -> None:
        while self.waiting and self._fits(self.waiting[0]):
            self.running.append(self.waiting.popleft())

    def _fits(self, generation: Generation) -> bool:
        seats = sum(len(running.unfinished) for running in self.running)
        owed = sum(running.blocks_owed for running in self.running)
        return (
            seats + len(generation.choices) <= self.limits.max_batch_sequences
            and owed + generation.blocks_owed <= self.blocks.free
        )

    def _grow(self, choice: Choice, positions: int) -> None:
        blocks = -(-positions // self.limits.block_size)
        choice.block_table += self.blocks.allocate(blocks - len(choice.block_table))

    def _refuse_impossible(self, generation: Generation) -> None:
        limits, request = self.limits, generation.request
        prompt, answer = len(request.prompt), request.sampling.max_tokens
        if len(generation.choices) > limits.max_batch_sequences:
            raise RequestError(
                "n", f"{len(generation.choices)} choices; {limits.max_batch_sequences} run at once"
            )
        if prompt + answer > limits.max_context_tokens:
            raise ContextLengthError(
                "messages" if prompt >= limits.max_context_tokens else "max_tokens",
                f"the prompt has {prompt} tokens and up to {answer} were asked for; together "
                f"they may be at most {limits.max_context_tokens}",
            )
        if generation.blocks_owed > limits.num_blocks:
            raise ContextLengthError(
                "max_tokens",
                f"{len(generation.choices)} x up to {answer} tokens after a prompt of {prompt} "
                f"need {generation.blocks_owed} blocks of {limits.block_size} tokens; the KV "
                f"cache has {limits.num_blocks}",
            )
