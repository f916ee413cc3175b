"""The engine: requests in, token deltas out, one step at a time. Standard library only.

A step is schedule → run → postprocess. What computes it (one rank, a group behind its leader, a
simulation) is the ``Runner``'s business; which text the ids spell matters only to stop strings.
Not thread-safe: one loop calls it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from shards.admission import check_request, image_positions
from shards.detokenizer import TextStream, Vocabulary
from shards.errors import GroupError, RequestError
from shards.generation import Choice, Generation
from shards.request import Delta, FinishReason, GenerationRequest, TokenLogprob
from shards.scheduler import Limits, Schedule, Scheduler
from shards.step import PictureKey, Runner
from shards.tally import Tally

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A look at the engine.

    Attributes:
        running: choices being computed.
        waiting: choices of requests that wait for room.
        prompt_tokens_total: prompt tokens prefilled, once per request whatever its ``n``.
        generated_tokens_total: tokens drawn for all choices.
        unmetered_tokens_total: both kinds, of requests that nobody answers for; they are in no
            tally and in neither of the two counts above, whose sum is that of all tallies.
        last_token_at: ``clock`` when a token was last drawn; None before the first.
        step_seconds_total: spent in steps, from scheduling to the last token drawn.
        step_sequences_total: sequences computed, summed over steps.
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


class Engine:
    """Continuous batching over a runner.

    Args:
        vocabulary: bounds the ids, names those an answer may not contain, spells stop strings.
        clock: seconds that only go forward; for ``stats().last_token_at``.

    The other arguments are ``Limits``'. After the runner has failed once, its ranks may disagree
    about what was computed: every later call raises GroupError, except ``stats``.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        vocabulary: Vocabulary,
        num_blocks: int,
        block_size: int,
        max_context_tokens: int,
        max_batch_sequences: int,
        max_step_tokens: int,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._vocabulary = vocabulary
        self._clock = clock
        self._scheduler = Scheduler(
            Limits(
                num_blocks=num_blocks,
                block_size=block_size,
                max_context_tokens=max_context_tokens,
                max_batch_sequences=max_batch_sequences,
                max_step_tokens=max_step_tokens,
                max_waiting=max_waiting,
            )
        )
        self._generations: dict[str, Generation] = {}
        # Features of requests that wait stay here: the ranks' memory is for those that run.
        self._features: dict[str, Sequence[np.ndarray]] = {}
        self._never = vocabulary.control_ids - vocabulary.answer_ids
        self._failure: str | None = None
        # Choices whose tally has changed and was not asked for since, oldest change first.
        self._untold: dict[Choice, None] = {}
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._unmetered_tokens = 0
        self._steps = 0
        self._step_seconds = 0.0
        self._step_sequences = 0
        self._last_token_at: float | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._generations)

    def add(
        self,
        request: GenerationRequest,
        features: Sequence[np.ndarray] = (),
        *,
        metered: bool = True,
    ) -> None:
        """Take a request in; its deltas come out of the next steps.

        Args:
            features: per picture [patches, vision hidden], before the projector.
            metered: False for a request of nobody's (a sign of life), which is not tallied.

        Raises:
            RequestError: it can never run (field named); ContextLengthError: it is too long.
            QueueFullError: too many requests wait.
            GroupError: the runner has failed.
        """
        self._require_alive()
        if request.request_id in self._generations:
            raise RequestError("request_id", f"{request.request_id!r} is being answered already")
        check_request(request, features, self._vocabulary)
        generation = self._generation(request, metered)
        self._scheduler.add(generation)
        self._generations[request.request_id] = generation
        if features:
            self._features[request.request_id] = features

    def step(self) -> list[Delta]:
        """Compute one step; one delta for every choice that drew a token.

        Raises:
            GroupError: the runner has failed.
        """
        self._require_alive()
        started = self._clock()
        schedule = self._scheduler.schedule()
        for choice in schedule.choices:
            if choice.generation.started_at is None:
                choice.generation.started_at = started
        drawn = self._run(schedule)
        deltas = self._postprocess(schedule, drawn)
        if schedule.choices:
            self._steps += 1
            self._step_seconds += self._clock() - started
            self._step_sequences += len(schedule.choices)
        return deltas

    def abort(self, request_id: str, last_attempt: float = inf) -> tuple[Delta, ...]:
        """Stop a request, unless it runs in a later attempt, and free its blocks now.

        Returns:
            the last delta of each choice that was unfinished; none for an unknown request.

        Raises:
            GroupError: the runner has failed.
        """
        self._require_alive()
        generation = self._generations.get(request_id)
        if generation is None or generation.request.attempt > last_attempt:
            return ()
        deltas = []
        waits = generation in self._scheduler.waiting
        for choice in generation.unfinished:
            choice.finish_reason = FinishReason.ABORT
            if not waits:
                self._scheduler.finish(choice)
            deltas.append(_delta(choice))
        if waits:
            self._scheduler.withdraw(generation)
        self._forget(generation)
        return tuple(deltas)

    def tallies(self) -> tuple[Tally, ...]:
        """What was computed for each choice, of those for whom more was since the last call.

        Counts are cumulative; a prompt's progress shows before its first token. Ask after each
        step: what is not asked for is kept.
        """
        tallies = tuple(choice.tally for choice in self._untold)
        self._untold.clear()
        return tallies

    def stats(self) -> EngineStats:
        scheduler = self._scheduler
        return EngineStats(
            running=sum(len(generation.unfinished) for generation in scheduler.running),
            waiting=sum(len(generation.choices) for generation in scheduler.waiting),
            blocks_total=scheduler.blocks.total,
            blocks_free=scheduler.blocks.free,
            prompt_tokens_total=self._prompt_tokens,
            generated_tokens_total=self._generated_tokens,
            unmetered_tokens_total=self._unmetered_tokens,
            steps_total=self._steps,
            last_token_at=self._last_token_at,
            step_seconds_total=self._step_seconds,
            step_sequences_total=self._step_sequences,
        )

    def check(self) -> None:
        """Raises BlockAccountingError when a block is leaked or doubly used."""
        self._scheduler.check()

    def _run(self, schedule: Schedule) -> Sequence[TokenLogprob]:
        if not schedule.choices:
            return ()
        with self._fatal_failures():
            for generation in self._scheduler.running:
                request_id = generation.request.request_id
                for index, features in enumerate(self._features.pop(request_id, ())):
                    self._runner.add_picture(PictureKey(request_id, index), features)
            return self._runner.run(schedule.plan)

    def _postprocess(self, schedule: Schedule, drawn: Sequence[TokenLogprob]) -> list[Delta]:
        deltas = []
        tokens = iter(drawn)
        for choice, step in zip(schedule.choices, schedule.plan.sequences, strict=True):
            self._scheduler.advance(choice, len(step.token_ids))
            prefilled = len(step.token_ids) if choice.index == 0 and not choice.output else 0
            self._count(choice, prefilled, int(step.sample is not None))
            if step.sample is not None:
                deltas.append(self._accept(choice, next(tokens)))
        for generation in dict.fromkeys(choice.generation for choice in schedule.choices):
            self._drop_pictures(generation)
            if not generation.unfinished:
                del self._generations[generation.request.request_id]
        return deltas

    def _count(self, choice: Choice, prefilled: int, drawn: int) -> None:
        if not choice.generation.metered:
            self._unmetered_tokens += prefilled + drawn
        elif prefilled or drawn:
            self._prompt_tokens += prefilled
            self._generated_tokens += drawn
            self._untold[choice] = None

    def _accept(self, choice: Choice, drawn: TokenLogprob) -> Delta:
        """Add a token to a choice and see whether it ends there."""
        choice.append(drawn.token_id)
        generation = choice.generation
        self._last_token_at = generation.last_token_at = self._clock()
        if generation.first_token_at is None:
            generation.first_token_at = self._last_token_at
        choice.finish_reason, stop = self._ending(choice, drawn.token_id)
        if choice.finish_reason is not None:
            self._scheduler.finish(choice)
        wanted = generation.request.sampling.logprobs is not None
        return _delta(choice, (drawn.token_id,), (drawn,) if wanted else (), stop)

    def _ending(
        self, choice: Choice, token_id: int
    ) -> tuple[FinishReason | None, str | int | None]:
        sampling = choice.generation.request.sampling
        if token_id == self._vocabulary.eos_id:
            return FinishReason.STOP, None
        if token_id in sampling.stop_token_ids:
            return FinishReason.STOP, token_id
        if choice.text is not None:
            choice.text.push((token_id,))
            if choice.text.stopped is not None:
                return FinishReason.STOP, choice.text.stopped
        if len(choice.output) == sampling.max_tokens:
            return FinishReason.LENGTH, None
        return None, None

    def _generation(self, request: GenerationRequest, metered: bool) -> Generation:
        sampling, eos = request.sampling, self._vocabulary.eos_id
        banned = self._never | {eos} if sampling.ignore_eos else self._never
        return Generation(
            request,
            block_size=self._scheduler.limits.block_size,
            image_positions=image_positions(request, self._vocabulary),
            banned=tuple(sorted(banned)),
            banned_early=tuple(sorted({*banned, eos, *sampling.stop_token_ids})),
            texts=[
                TextStream(self._vocabulary, sampling.stop) if sampling.stop else None
                for _ in range(sampling.n)
            ],
            metered=metered,
            arrived_at=self._clock(),
        )

    def _forget(self, generation: Generation) -> None:
        del self._generations[generation.request.request_id]
        if self._features.pop(generation.request.request_id, None) is None:
            self._drop_pictures(generation)

    def _drop_pictures(self, generation: Generation) -> None:
        with self._fatal_failures():
            for key in generation.let_go_pictures():
                self._runner.drop_picture(key)

    @contextmanager
    def _fatal_failures(self) -> Iterator[None]:
        """After any error of the runner, even an interrupt, the ranks may be out of step."""
        try:
            yield
        except BaseException as error:
            self._failure = f"{type(error).__name__}: {error}"
            raise

    def _require_alive(self) -> None:
        if self._failure is not None:
            raise GroupError(f"the group has failed before ({self._failure})")


def _delta(
    choice: Choice,
    token_ids: tuple[int, ...] = (),
    logprobs: tuple[TokenLogprob, ...] = (),
    stop: str | int | None = None,
) -> Delta:
    generation, request = choice.generation, choice.generation.request
    return Delta(
        request_id=request.request_id,
        choice=choice.index,
        token_ids=token_ids,
        prompt_tokens=generation.prompt_tokens,
        completion_tokens=len(choice.output),
        finish_reason=choice.finish_reason,
        logprobs=logprobs,
        stop=stop,
        image_tokens=generation.image_tokens,
        attempt=request.attempt,
        timing=None if choice.finish_reason is None else generation.timing,
    )
