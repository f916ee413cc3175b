"""The engine: requests in, token deltas out, one step at a time. Standard library only.

A step is schedule → run → postprocess. What computes it (one rank, a group behind its leader, a
simulation) is the ``Runner``'s business; which text the ids spell matters only to stop strings.
Not thread-safe: one loop calls it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING

from shards.admission import check_request, image_positions
from shards.choice import Choice
from shards.detokenizer import TextStream, Vocabulary
from shards.errors import GroupError, RequestError
from shards.generation import Generation
from shards.limits import Limits
from shards.picture_shelf import PictureShelf
from shards.planning import Schedule
from shards.prefix_cache import private_root
from shards.request import Delta, FinishReason, GenerationRequest, TokenLogprob
from shards.scheduler import Scheduler
from shards.stats import EngineStats
from shards.step import Runner, nothing
from shards.tally import Tally

if TYPE_CHECKING:
    import numpy as np

    from shards.constraint import Grammar

_logger = logging.getLogger(__name__)


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
        prefix_cache: bool = True,
        max_drafts: int = 0,
        headroom_tokens: int = 64,
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
                prefix_cache=prefix_cache,
                max_drafts=max_drafts,
                headroom_tokens=headroom_tokens,
            )
        )
        self._generations: dict[str, Generation] = {}
        self._unfinished = 0
        self._pictures = PictureShelf(runner)
        self._arrivals = 0
        self._never = vocabulary.control_ids - vocabulary.answer_ids
        self._failure: str | None = None
        # Choices whose tally has changed and was not asked for since, oldest change first.
        self._untold: dict[Choice, None] = {}
        self._prompt_tokens = 0
        self._generated_tokens = 0
        self._unmetered_tokens = 0
        self._drafted_tokens = 0
        self._accepted_tokens = 0
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
        grammar: Grammar | None = None,
    ) -> None:
        """Take a request in; its deltas come out of the next steps.

        Args:
            features: per picture [patches, vision hidden], before the projector.
            metered: False for a request of nobody's (a sign of life), which is not tallied.
            grammar: what ``request.grammar`` means, compiled.

        Raises:
            RequestError: it can never run (field named); ContextLengthError: it is too long.
            QueueFullError: too many requests wait.
            GroupError: the runner has failed.
        """
        self._require_alive()
        if request.request_id in self._generations:
            raise RequestError("request_id", f"{request.request_id!r} is being answered already")
        check_request(request, features, self._vocabulary)
        generation = self._generation(request, metered, grammar)
        self._scheduler.add(generation)
        self._generations[request.request_id] = generation
        self._unfinished += len(generation.choices)
        self._pictures.keep(generation, features)

    def step(self, meanwhile: Callable[[], None] = nothing) -> list[Delta]:
        """Compute one step; one delta for every choice that drew tokens.

        Args:
            meanwhile: called once, while the device computes: the time to pass on what the last
                step brought. Called all the same when there is nothing to compute; perhaps not
                when the step fails.

        Raises:
            GroupError: the runner has failed.
        """
        self._require_alive()
        started = self._clock()
        schedule = self._scheduler.schedule()
        if not schedule.choices:
            meanwhile()
            return []
        for choice in schedule.choices:
            if choice.generation.started_at is None:
                choice.generation.started_at = started
        drawn = self._run(schedule, meanwhile)
        deltas = self._postprocess(schedule, drawn)
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
        for choice in generation.unfinished:
            choice.finish_reason = FinishReason.ABORT
            self._scheduler.finish(choice)
            deltas.append(choice.delta())
        self._unfinished -= len(deltas)
        self._forget(generation)
        self._tidy_pictures()
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
        scheduler, counters = self._scheduler, self._scheduler.counters
        return EngineStats(
            running=len(scheduler.seated),
            waiting=self._unfinished - len(scheduler.seated),
            blocks_total=scheduler.blocks.total,
            blocks_free=scheduler.blocks.free,
            prompt_tokens_total=self._prompt_tokens,
            generated_tokens_total=self._generated_tokens,
            unmetered_tokens_total=self._unmetered_tokens,
            steps_total=self._steps,
            last_token_at=self._last_token_at,
            step_seconds_total=self._step_seconds,
            step_sequences_total=self._step_sequences,
            queried_tokens_total=counters.queried,
            cached_tokens_total=counters.cached,
            drafted_tokens_total=self._drafted_tokens,
            accepted_tokens_total=self._accepted_tokens,
            put_back_total=counters.put_back,
            recomputed_tokens_total=counters.recomputed,
        )

    def check(self) -> None:
        """Raises BlockAccountingError when a block is leaked or doubly used."""
        self._scheduler.check()

    def _run(
        self, schedule: Schedule, meanwhile: Callable[[], None]
    ) -> dict[int, tuple[TokenLogprob, ...]]:
        """What each row drew."""
        with self._fatal_failures():
            for choice in schedule.begun:
                self._pictures.show(choice)
            results = self._runner.run(schedule.plan, meanwhile)
            drawn = {result.row: result.tokens for result in results}
            expected = {choice.row for choice in schedule.choices if choice.draws}
            if drawn.keys() != expected:
                raise GroupError(f"rows {sorted(drawn)} drew, not {expected}")
            return drawn

    def _postprocess(
        self, schedule: Schedule, drawn: Mapping[int, tuple[TokenLogprob, ...]]
    ) -> list[Delta]:
        deltas = []
        for choice in schedule.choices:
            assert choice.row is not None
            generation, tokens = choice.generation, drawn.get(choice.row, ())
            before = generation.prefilled
            self._scheduler.advance(choice, len(tokens))
            prefilled = generation.prefilled - before
            counted, stop = self._accept(choice, tokens)
            self._count(choice, prefilled, len(counted))
            self._scheduler.settle(choice)
            if counted or choice.finish_reason is not None:
                deltas.append(choice.delta(counted, stop))
            if choice.finish_reason is not None:
                self._unfinished -= 1
                if not generation.unfinished:
                    self._forget(generation)
        self._tidy_pictures()
        return deltas

    def _count(self, choice: Choice, prefilled: int, drawn: int) -> None:
        """Every token drawn but the first took a draft; the other drafts were for nothing."""
        drafted = len(choice.drafts)
        accepted = max(drawn - 1, 0)
        rejected = drafted - accepted
        if not choice.generation.metered:
            self._unmetered_tokens += prefilled + drawn + rejected
        elif prefilled or drawn or rejected:
            choice.rejected_drafts += rejected
            self._prompt_tokens += prefilled
            self._generated_tokens += drawn
            self._drafted_tokens += drafted
            self._accepted_tokens += accepted
            self._untold[choice] = None

    def _accept(
        self, choice: Choice, drawn: Sequence[TokenLogprob]
    ) -> tuple[tuple[TokenLogprob, ...], str | int | None]:
        """Add tokens to a choice, one at a time, until it ends.

        Returns:
            those that count, and what stopped it, as ``Delta.stop``.
        """
        if not drawn:
            return (), None
        generation = choice.generation
        self._last_token_at = generation.last_token_at = self._clock()
        if generation.first_token_at is None:
            generation.first_token_at = self._last_token_at
        for count, token in enumerate(drawn, start=1):
            if not self._conforms(choice, token.token_id):
                choice.finish_reason = FinishReason.ABORT
                return tuple(drawn[: count - 1]), None
            choice.output.append(token.token_id)
            choice.finish_reason, stop = self._ending(choice, token.token_id)
            if choice.finish_reason is not None:
                return tuple(drawn[:count]), stop
        return tuple(drawn), None

    def _conforms(self, choice: Choice, token_id: int) -> bool:
        """Whether its grammar takes the token; if not it is at fault, and nobody else is to pay."""
        if choice.matcher is None:
            return True
        try:
            choice.matcher.accept(token_id)
        except ValueError as error:
            request_id = choice.generation.request.request_id
            _logger.error("choice %d of %s is ended: %s", choice.index, request_id, error)
            return False
        return True

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

    def _generation(
        self, request: GenerationRequest, metered: bool, grammar: Grammar | None
    ) -> Generation:
        sampling, eos, limits = request.sampling, self._vocabulary.eos_id, self._scheduler.limits
        banned = self._never | {eos} if sampling.ignore_eos else self._never
        self._arrivals += 1
        return Generation(
            request,
            block_size=limits.block_size,
            image_positions=image_positions(request, self._vocabulary),
            banned=tuple(sorted(banned)),
            banned_early=tuple(sorted({*banned, eos, *sampling.stop_token_ids})),
            texts=[
                TextStream(self._vocabulary, sampling.stop) if sampling.stop else None
                for _ in range(sampling.n)
            ],
            grammar=grammar,
            root=None if limits.prefix_cache else private_root(self._arrivals),
            # A penalty is looked up for all that was said at each draw, and refuses what repeats.
            drafts=limits.max_drafts > 0 and not sampling.penalised,
            metered=metered,
            arrived_at=self._clock(),
        )

    def _forget(self, generation: Generation) -> None:
        del self._generations[generation.request.request_id]
        self._pictures.forget(generation)

    def _tidy_pictures(self) -> None:
        with self._fatal_failures():
            self._pictures.tidy()

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
