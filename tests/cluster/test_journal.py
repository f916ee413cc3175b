"""What a group says it computed, when processes die and callers leave; asked as a gateway asks."""

from __future__ import annotations

import asyncio
import contextvars
import time
import urllib.request
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import psutil
import pytest
from ray import serve

from serve_app import cluster
from serve_app.errors import GenerationFailed, Overloaded
from serve_app.messages import Prompt
from serve_app.serve_handles import ServeTiers
from serve_app.telemetry import GatewayMetrics
from shards.request import Delta, FinishReason, GenerationRequest, Sampling
from shards.tally import Tally
from tests.cluster.system import System

PROMPT = (1, *range(100, 140))
PROBE = "probe"


class Metrics:
    """Counts nothing."""

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(inc=lambda value=1.0: None, observe=lambda value: None)


def make_tiers() -> ServeTiers:
    preprocess, vision, decoder = (
        serve.get_deployment_handle(tier, cluster.APPLICATION)
        for tier in ("Preprocess", "Vision", "DecoderGroup")
    )
    return ServeTiers(preprocess, vision, decoder, cast(GatewayMetrics, Metrics()))


def request(max_tokens: int) -> GenerationRequest:
    sampling = Sampling(seed=1, max_tokens=max_tokens, ignore_eos=True)
    return GenerationRequest(str(uuid4()), PROMPT, sampling)


def generate(tiers: ServeTiers, job: GenerationRequest) -> AsyncGenerator[tuple[Delta, ...], None]:
    return tiers.generate(job, Prompt(PROMPT, len(PROMPT), 0))


async def journaled(tiers: ServeTiers, request_id: str) -> tuple[str, Tally]:
    """The group that computed for the request, and how much, read from all journals' starts."""
    found: dict[str, Tally] = {}
    bookmarks: dict[str, int] = {}
    more = True
    while more:
        pages = await tiers.journal(bookmarks)
        more = any(page.more for page in pages)
        for page in pages:
            assert page.lost == 0
            bookmarks[page.group] = page.offset
            for tally in page.tallies:
                if tally.request_id == request_id:
                    found[page.group] = tally
    ((group, tally),) = found.items()
    return group, tally


@pytest.fixture
def tiers(system: System) -> Iterator[ServeTiers]:
    tiers = make_tiers()
    yield tiers
    tiers.shutdown()


@pytest.mark.parametrize("victim", ["rank 0", "replica"])
def test_kill_minus_9_leaves_a_journal_of_at_least_what_was_delivered(
    system: System, tiers: ServeTiers, victim: str
) -> None:
    pulse = system.group()
    (replica,) = system.processes("ServeReplica:pixtral:DecoderGroup")
    pid = pulse["rank_pids"][0] if victim == "rank 0" else replica.pid
    job = request(max_tokens=3000)

    delivered = 0

    async def stream_and_kill() -> None:
        nonlocal delivered
        async for deltas in generate(tiers, job):
            delivered += sum(len(delta.token_ids) for delta in deltas)
            if delivered >= 20:
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()

    with pytest.raises(GenerationFailed):
        asyncio.run(stream_and_kill())
    system.wait_ready()
    # Its own group is gone; the one that took its place reads for it.
    assert system.group()["group"] != pulse["group"]
    group, tally = asyncio.run(journaled(tiers, job.request_id))
    assert group == pulse["group"]
    assert tally.text == len(PROMPT)
    assert delivered <= tally.output < 3000


def test_an_abort_from_outside_ends_the_stream_with_what_the_journal_says(
    system: System, tiers: ServeTiers
) -> None:
    job = request(max_tokens=3000)

    async def abort_after_some() -> tuple[Delta, Tally]:
        deltas: list[Delta] = []
        aborting: asyncio.Task[None] | None = None
        async for some in generate(tiers, job):
            deltas += some
            if aborting is None and len(deltas) >= 20:
                aborting = asyncio.create_task(tiers.abort([job.request_id, "unknown"]))
        assert aborting is not None
        await aborting
        assert sum(len(delta.token_ids) for delta in deltas) == deltas[-1].completion_tokens
        return deltas[-1], (await journaled(tiers, job.request_id))[1]

    last, tally = asyncio.run(abort_after_some())
    assert last.finish_reason is FinishReason.ABORT
    assert (tally.text, tally.output) == (last.prompt_tokens, last.completion_tokens)
    assert 20 <= tally.output < 3000
    assert system.stats()["running"] == 0


def test_the_journal_adds_up_to_the_groups_counters(system: System, tiers: ServeTiers) -> None:
    before = system.stats()
    job = request(max_tokens=30)

    async def run() -> Tally:
        async for _ in generate(tiers, job):
            pass
        return (await journaled(tiers, job.request_id))[1]

    tally = asyncio.run(run())
    after = system.stats()
    assert (tally.text + tally.cached_text, tally.output) == (len(PROMPT), 30)
    counted = {"prompt": tally.text, "cached": tally.cached_text, "generated": tally.output}
    for counter, count in counted.items():
        assert after[f"{counter}_tokens_total"] - before[f"{counter}_tokens_total"] == count


def test_with_no_answer_from_a_group_nothing_is_final(system: System, tiers: ServeTiers) -> None:
    (replica,) = system.processes("ServeReplica:pixtral:DecoderGroup")

    async def ask() -> None:
        await tiers.readiness()
        replica.kill()
        await tiers.abort(["unknown"])

    with pytest.raises(Overloaded):
        asyncio.run(ask())


class Probe:
    """A replica that asks for an answer in the context of an HTTP request, or in an empty one."""

    def __init__(self) -> None:
        self.tiers = make_tiers()
        self.ends: dict[str, str] = {}
        self.tasks: set[asyncio.Task[None]] = set()

    async def __call__(self, http: Any) -> None:
        context = None if http.query_params["context"] == "own" else contextvars.Context()
        loop = asyncio.get_running_loop()
        self.tasks.add(loop.create_task(self.answer(http.query_params["id"]), context=context))
        await asyncio.Event().wait()

    async def answer(self, request_id: str) -> None:
        sampling = Sampling(seed=1, max_tokens=150, ignore_eos=True)
        job = GenerationRequest(request_id, PROMPT, sampling)
        self.ends[request_id] = "begun"
        try:
            async with aclosing(generate(self.tiers, job)) as stream:
                async for deltas in stream:
                    if deltas[-1].finish_reason is not None:
                        self.ends[request_id] = deltas[-1].finish_reason
        except BaseException as error:
            self.ends[request_id] = repr(error)
            raise

    def end(self, request_id: str) -> str:
        return self.ends.get(request_id, "unknown")


@pytest.fixture(scope="module")
def probe(system: System) -> Iterator[Any]:
    deployment = serve.deployment(Probe, name=PROBE, ray_actor_options={"num_cpus": 0})
    yield serve.run(deployment.bind(), name=PROBE, route_prefix=f"/{PROBE}")
    serve.delete(PROBE)


@pytest.mark.parametrize(("context", "ends"), [("empty", FinishReason.LENGTH), ("own", "Cancel")])
def test_only_calls_from_an_empty_context_outlive_the_client(
    system: System, probe: Any, context: str, ends: str
) -> None:
    request_id = str(uuid4())
    url = f"{system.url}/{PROBE}?context={context}&id={request_id}"
    with pytest.raises(TimeoutError):
        urllib.request.urlopen(url, timeout=0.7)
    deadline = time.monotonic() + 60
    while (end := probe.end.remote(request_id).result(timeout_s=10)) == "begun":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ends in end
