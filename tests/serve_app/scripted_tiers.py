"""``ServeTiers`` over tiers that say what they are told to, and note how they were called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from types import SimpleNamespace
from typing import Any

from ray.exceptions import RayTaskError

from serve_app.messages import (
    EncodeRequest,
    Features,
    Generate,
    Lacking,
    Patches,
    PictureSource,
    PrepareRequest,
    Prompt,
)
from serve_app.serve_handles import ServeTiers
from shards.conversation import Conversation
from shards.grid import Grid
from shards.request import (
    Delta,
    GenerationRequest,
    Picture,
    Sampling,
)

PICTURE = Picture(Grid(1, 2), "abc")
REQUEST = GenerationRequest("r", (1, 10, 10, 15), Sampling(seed=0, max_tokens=2), (PICTURE,))
SOURCE = PrepareRequest(
    "r", Conversation(()), (PictureSource(b"png", "messages[0].content[0].image_url"),)
)


class Counter:
    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, value: float = 1.0) -> None:
        self.value += value

    def observe(self, value: float) -> None:
        self.value += 1


class Handle:
    """A deployment handle: ``options`` and then ``method.remote(argument)`` or ``broadcast``.

    ``replicas`` are what a broadcast reaches: functions of method and argument.
    """

    def __init__(self, **methods: Callable[[Any], Any]) -> None:
        self.called_by_reference: list[bool] = []
        self.sessions: list[str] = []
        self.replicas: list[Callable[[str, Any], Any]] = []
        self._methods = methods

    def broadcast(self, method: str, argument: Any = None) -> Any:
        async def results_async(timeout_s: float, return_exceptions: bool = False) -> list[Any]:
            assert timeout_s > 0
            answers: list[Any] = []
            for replica in self.replicas:
                try:
                    answers.append(replica(method, argument))
                except RayTaskError as error:
                    if not return_exceptions:
                        raise
                    answers.append(error)
            return answers

        return SimpleNamespace(results_async=results_async)

    def options(self, *, _by_reference: bool = True, session_id: str = "", **_: Any) -> Any:
        def calling(method: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def remote(argument: Any) -> Any:
                self.called_by_reference.append(_by_reference)
                self.sessions.append(session_id)
                return method(argument)

            return remote

        calls = {name: calling(method) for name, method in self._methods.items()}
        methods = {name: SimpleNamespace(remote=remote) for name, remote in calls.items()}
        return SimpleNamespace(**methods, broadcast=self.broadcast, options=self.options)


class Stream:
    """A response generator: yields deltas, then perhaps raises; notes its cancellation."""

    def __init__(self, *items: tuple[Delta, ...] | Lacking | Exception) -> None:
        self.items = list(items)
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    async def __aiter__(self) -> AsyncIterator[tuple[Delta, ...] | Lacking]:
        for item in self.items:
            if isinstance(item, Exception):
                raise item
            yield item


class Tiers:
    """ServeTiers over scripted tiers, with the calls they saw.

    ``kept``: what each group that is asked in turn keeps; the last one is asked from then on. Those
    ``jobs`` are what lacked nothing; ``lacked`` what was answered to the others.
    """

    def __init__(
        self, streams: list[Stream], prepares: list[Exception | None] | None = None
    ) -> None:
        self.jobs: list[Generate] = []
        self.kept: list[Collection[Picture]] = [()]
        self.lacked: list[tuple[int, ...]] = []
        self.prepared = 0
        self.encoded = 0
        self.asked: list[EncodeRequest] = []
        self.streams = list(streams)
        self.prepares = list(prepares or [])
        self.metrics = SimpleNamespace(
            retries=Counter(),
            failures=Counter(),
            time_to_first_token=Counter(),
            prompt_tokens=Counter(),
            completion_tokens=Counter(),
            token_seconds=Counter(),
            longest_gap=Counter(),
        )
        self.handles = (
            Handle(prepare=self._prepare),
            Handle(encode=self._encode),
            Handle(generate=self._generate),
        )
        self.tiers = ServeTiers(*self.handles, self.metrics)  # type: ignore[arg-type]

    def _prepare(self, request: PrepareRequest) -> Awaitable[Prompt]:
        async def answer() -> Prompt:
            self.prepared += 1
            error = self.prepares.pop(0) if self.prepares else None
            if error is not None:
                raise error
            return Prompt(REQUEST.prompt, 1, 3, (Patches(PICTURE, f"patches-{self.prepared}"),))

        return answer()

    def _encode(self, request: Any) -> Awaitable[tuple[Features, ...]]:
        async def answer() -> tuple[Features, ...]:
            self.encoded += 1
            self.asked.append(request)
            return tuple(Features(p.picture, f"features of {p.ref}") for p in request.patches)

        return answer()

    def _generate(self, job: Generate) -> Stream:
        kept = self.kept.pop(0) if len(self.kept) > 1 else self.kept[0]
        held = {*kept, *(features.picture for features in job.features)}
        pictures = job.request.pictures
        lacking = tuple(place for place, each in enumerate(pictures) if each not in held)
        if lacking:
            self.lacked.append(lacking)
            return Stream(Lacking(lacking))
        self.jobs.append(job)
        return self.streams[len(self.jobs) - 1]

    def broadcast_to(self, *replicas: Callable[[str, Any], Any]) -> None:
        self.handles[2].replicas = list(replicas)

    async def answer(self) -> list[Delta]:
        prompt = await self.tiers.prepare(SOURCE)
        return [d async for deltas in self.tiers.generate(REQUEST, prompt) for d in deltas]
