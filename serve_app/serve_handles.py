"""The only file that knows Ray Serve's transport rules.

- A call that carries an ObjectRef, there or back, goes by reference (``_by_reference=True``): over
  Serve's gRPC transport the ref would be pickled outside Ray's reference counting and stay pinned
  for the worker's life. One of text alone goes by gRPC, which costs half as much a call and a
  third as much an item of a stream (ops/bench/README.md).
- An array is put in the object store by the tier that made it, which therefore owns it; the
  message that names it keeps it alive. If the owner dies the array is lost, and the request is
  prepared again from its inputs.
- On a caller's disconnect Serve cancels every call that was made in the context of his request.
  Who must outlive him calls from a task in an empty ``contextvars.Context``, where nothing is
  cancelled, and ends the request by ``abort``. A stream that is closed here, or cancelled, cancels
  the replica's generator, which aborts the request in the engine, too.
- A group is asked first, without features: it begins at once if it has kept those of all the
  request's pictures; else it answers which it lacks (``Lacking``, a small message), before anything
  is begun or counted. These are encoded and it is asked again. What is brought cannot be lacking,
  so only another group, where the second asking may lead, can lack more; the third time everything
  is brought. What a group finds it holds until the request ends (rank.py): nothing is missed later.
- A picture is encoded by the replica that its content names (``STICKY_ROUTER``, Serve's own, by
  session), which may have kept its features; by the next one where that is full or gone.
- What all groups must hear is broadcast: to the replicas that this process knows to be running,
  past their queues. A replica that drains is not among them.
- Exceptions of a tier arrive wrapped in RayTaskError; ``unwrap`` gives back what was raised.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

import grpc
import ray
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from serve_app.answer_pace import AnswerPace
from serve_app.errors import ApiError, GenerationFailed, Overloaded, api_error
from serve_app.gateway.tiers import Readiness
from serve_app.messages import (
    EncodeRequest,
    Features,
    Generate,
    JournalPage,
    Lacking,
    PrepareRequest,
    Prompt,
    Pulse,
)
from serve_app.reasons import group_reasons, tier_reasons
from serve_app.telemetry import GatewayMetrics
from serve_app.tracing import Tracing
from shards.errors import GroupError, QueueFullError
from shards.request import Delta, GenerationRequest, Picture, never_begun

T = TypeVar("T")
_logger = logging.getLogger(__name__)
STICKY_ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
# A lost tier is replaced within seconds; three tries reach a healthy one or show that none is.
ATTEMPTS = 3
RETRY_DELAY_S = 0.5
# Of a group, until it lacks nothing (see above).
ASKINGS = 3
READINESS_TIMEOUT_S = 2.0
# A group hears between two steps; a long prefill on a CPU takes seconds.
BROADCAST_TIMEOUT_S = 15.0
_LOST = (
    ActorDiedError,
    ActorUnavailableError,
    RayActorError,
    ObjectLostError,
    WorkerCrashedError,
    GroupError,
    # A gRPC stream whose other end died ends with this, where it is not an ActorUnavailableError.
    grpc.RpcError,
)


def unwrap(error: BaseException) -> BaseException:
    """What a tier raised, out of Ray's wrapping."""
    while isinstance(error, RayTaskError) and error.cause is not None:
        error = error.cause
    return error


def tier_lost(error: BaseException) -> bool:
    """Whether the work may be sent again elsewhere: the tier died, the request is not at fault."""
    return isinstance(unwrap(error), _LOST)


class ServeTiers:
    """The tiers behind the gateway, over deployment handles (see ``gateway/tiers.py``)."""

    def __init__(
        self,
        preprocess: Any,
        vision: Any,
        decoder: Any,
        metrics: GatewayMetrics,
        tracing: Tracing | None = None,
        may_sleep: Collection[str] = (),
    ) -> None:
        """``may_sleep``: of preprocessing and vision, those that run only while needed."""
        self._tracing = tracing
        self._may_sleep = may_sleep
        self._preprocess = _Transports(preprocess)
        self._vision = vision.options(_by_reference=True)
        self._decoder = decoder.options(_by_reference=True)
        self._streaming_decoder = _Transports(decoder, stream=True)
        # To be asked for a sign of life.
        self._others = {
            "preprocessing": self._preprocess.carrying(refs=True),
            "vision": self._vision,
        }
        self._metrics = metrics
        # Requests that are being answered through here, and those of them that were aborted.
        self._open: set[str] = set()
        self._aborted: set[str] = set()

    def shutdown(self) -> None:
        """For a process that outlives the system: its handles would report their load for ever."""
        either = (*self._preprocess.each, *self._streaming_decoder.each)
        for handle in (*either, self._vision, self._decoder):
            handle.shutdown()

    async def prepare(self, request: PrepareRequest) -> Prompt:
        if self._tracing is not None:
            parent = self._tracing.parent_of(request.request_id)
            request = replace(request, trail=replace(request.trail, traceparent=parent))
        prompt = await self._retried(lambda: self._prepare(request))
        return replace(prompt, source=request)

    async def generate(
        self, request: GenerationRequest, prompt: Prompt
    ) -> AsyncGenerator[tuple[Delta, ...], None]:
        pace = AnswerPace(self._metrics)
        self._open.add(request.request_id)
        try:
            async with aclosing(self._attempts(request, prompt)) as stream:
                async for deltas in stream:
                    pace.delivered(deltas)
                    yield deltas
        finally:
            pace.ended()
            self._open.discard(request.request_id)
            self._aborted.discard(request.request_id)

    async def abort(self, request_ids: Sequence[str]) -> None:
        # Those on their way to a group end before they reach it, or when they do.
        self._aborted |= self._open.intersection(request_ids)
        await self._every_group("abort", tuple(request_ids))

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        pages: dict[str, JournalPage] = {}
        for answer in await self._every_group("journal", dict(bookmarks)):
            for page in answer:
                # Groups on one node read the same journals.
                known = pages.get(page.group)
                if known is None or known.offset < page.offset:
                    pages[page.group] = page
        return tuple(pages.values())

    async def computed(self) -> Mapping[str, int]:
        return {pulse.group: pulse.stats.tallied for pulse in await self._every_group("pulse")}

    async def groups(self) -> Sequence[Pulse | None]:
        answers = await _ask(self._decoder, "pulse")
        return [answer if isinstance(answer, Pulse) else None for answer in answers]

    async def readiness(self) -> Readiness:
        groups, *others = await asyncio.gather(
            _ask(self._decoder, "pulse"), *(_ask(tier, "alive") for tier in self._others.values())
        )
        reasons = group_reasons(groups)
        for name, answers in zip(self._others, others, strict=True):
            reasons += tier_reasons(name, answers, may_sleep=name in self._may_sleep)
        return Readiness(not reasons, tuple(reasons))

    async def _prepare(self, request: PrepareRequest) -> Prompt:
        tier = self._preprocess.carrying(refs=bool(request.pictures))
        prompt: Prompt = await tier.prepare.remote(request)
        return prompt

    async def _encode(
        self, request: GenerationRequest, prompt: Prompt, wanted: Collection[Picture]
    ) -> dict[Picture, Features]:
        salt = request.tenant.cache_salt
        lacking = {each.picture: each for each in prompt.patches if each.picture in wanted}
        found: list[tuple[Features, ...]] = await asyncio.gather(
            *(
                self._vision.options(session_id=f"{salt}:{picture.content}").encode.remote(
                    EncodeRequest(request.request_id, (patches,), prompt.trail, salt)
                )
                for picture, patches in lacking.items()
            )
        )
        return {features.picture: features for each in found for features in each}

    async def _attempts(
        self, request: GenerationRequest, prompt: Prompt
    ) -> AsyncGenerator[tuple[Delta, ...], None]:
        """Send the request again elsewhere, until something of the answer has come."""
        for attempt in range(1, ATTEMPTS + 1):
            delivered = False
            try:
                async with aclosing(self._attempt(request, prompt)) as stream:
                    async for deltas in stream:
                        delivered = True
                        yield deltas
                return
            except Exception as error:
                if delivered and tier_lost(error):
                    self._metrics.failures.inc()
                    raise GenerationFailed(
                        "the model's group was lost while answering; the answer is incomplete"
                    ) from error
                if attempt == ATTEMPTS or not tier_lost(error):
                    _refuse(error)
                self._metrics.retries.inc()
            await asyncio.sleep(RETRY_DELAY_S * attempt)
            request = replace(request, attempt=request.attempt + 1)
            if prompt.patches and prompt.source is not None:
                # The patches may have died with the tier that owned them.
                prompt = await self._prepared_again(request, prompt.source)

    async def _prepared_again(self, request: GenerationRequest, source: PrepareRequest) -> Prompt:
        """Raises GenerationFailed: an address no longer leads to the picture that it led to."""
        prompt = await self.prepare(source)
        if tuple(patches.picture for patches in prompt.patches) != request.pictures:
            raise GenerationFailed(
                "a tier was lost, and when the pictures were fetched again they had changed"
            )
        return prompt

    async def _attempt(
        self, request: GenerationRequest, prompt: Prompt
    ) -> AsyncGenerator[tuple[Delta, ...], None]:
        features: dict[Picture, Features] = {}
        for _ in range(ASKINGS):
            if request.request_id in self._aborted:
                yield never_begun(request)
                return
            lacking: Lacking | None = None
            async with aclosing(self._asked(request, prompt, features)) as stream:
                async for item in stream:
                    if isinstance(item, Lacking):
                        lacking = item
                    else:
                        yield item
            if lacking is None:
                return
            wanted = {request.pictures[place] for place in lacking.pictures}
            if features:
                wanted = set(request.pictures) - features.keys()
            if request.request_id not in self._aborted:
                features |= await self._encode(request, prompt, wanted)
        raise GroupError("a group lacks features that were brought to it")

    async def _asked(
        self, request: GenerationRequest, prompt: Prompt, features: Mapping[Picture, Features]
    ) -> AsyncGenerator[tuple[Delta, ...] | Lacking, None]:
        decoder = self._streaming_decoder.carrying(refs=bool(features))
        job = Generate(request, tuple(features.values()), prompt.trail)
        stream = decoder.generate.remote(job)
        ended = False
        try:
            async for item in stream:
                yield item
            ended = True
        finally:
            if not ended:
                with suppress(Exception):
                    stream.cancel()

    async def _every_group(self, method: str, *arguments: Any) -> list[Any]:
        """Every running group's answer.

        Raises:
            Overloaded: one did not answer, or there is none to ask.
        """
        try:
            answers: list[Any] = await self._decoder.broadcast(method, *arguments).results_async(
                timeout_s=BROADCAST_TIMEOUT_S
            )
        except Exception as error:
            raise Overloaded("a decoder group did not answer; try again shortly") from error
        if not answers:
            raise Overloaded("no decoder group is running; try again shortly")
        return answers

    async def _retried(self, call: Callable[[], Awaitable[T]]) -> T:
        for attempt in range(1, ATTEMPTS):
            try:
                return await call()
            except Exception as error:
                if not tier_lost(error):
                    _refuse(error)
                self._metrics.retries.inc()
            await asyncio.sleep(RETRY_DELAY_S * attempt)
        try:
            return await call()
        except Exception as error:
            _refuse(error)


class _Transports:
    """One deployment's handle, for calls with and without references."""

    def __init__(self, handle: Any, **options: Any) -> None:
        self._by_reference = handle.options(_by_reference=True, **options)
        self._by_message = handle.options(_by_reference=False, **options)

    @property
    def each(self) -> tuple[Any, Any]:
        return self._by_reference, self._by_message

    def carrying(self, *, refs: bool) -> Any:
        return self._by_reference if refs else self._by_message


async def _ask(tier: Any, method: str) -> list[Any]:
    """What each running replica says, errors among it; none while none runs."""
    try:
        answers: list[Any] = await tier.broadcast(method).results_async(
            timeout_s=READINESS_TIMEOUT_S, return_exceptions=True
        )
    except Exception as error:
        _logger.warning("no %s of a tier: %r", method, error)
        return []
    return answers


def _refuse(error: Exception) -> NoReturn:
    """Raise what the caller is told of a tier's error."""
    cause = unwrap(error)
    if isinstance(cause, ApiError):
        # Its wrapping names it as its cause; naming the wrapping as its own would close a circle.
        raise cause from None
    full = (BackPressureError, DeploymentUnavailableError, QueueFullError)
    if isinstance(cause, full) or tier_lost(cause):
        raise Overloaded("no replica can take the request right now; try again shortly") from error
    raise api_error(cause) from error


def put_array(array: Any) -> ray.ObjectRef:
    """Store an array; the calling tier owns it."""
    return ray.put(array)
