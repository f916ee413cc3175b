"""Retries, refusals and hang-ups, over handles that behave as Serve's do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import ActorDiedError, OwnerDiedError, RayTaskError
from ray.serve.exceptions import BackPressureError

from serve_app import serve_handles
from serve_app.errors import GenerationFailed, InvalidRequest, Overloaded, ServerFault
from serve_app.messages import (
    Features,
    JournalPage,
    Patches,
    PrepareRequest,
    Pulse,
)
from serve_app.serve_handles import ServeTiers, unwrap
from shards.conversation import Conversation
from shards.errors import GroupError, QueueFullError, RequestError
from shards.request import (
    Delta,
    FinishReason,
    Picture,
    Tenant,
)
from shards.stats import EngineStats
from shards.tally import Tally
from tests.serve_app.scripted_tiers import PICTURE, REQUEST, SOURCE, Stream, Tiers

DIED = ActorDiedError()
CUT = AioRpcError(StatusCode.INTERNAL, Metadata(), Metadata(), "the stream was reset")


def delta(token: int, finish: FinishReason | None = None) -> Delta:
    return Delta("r", 0, (token,), 4, token, finish)


def as_task_error(cause: Exception) -> Exception:
    error: Exception = RayTaskError("generate", "trace", cause).as_instanceof_cause()
    return error


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_handles, "RETRY_DELAY_S", 0.0)


async def test_what_carries_references_is_called_by_reference():
    tiers = Tiers([Stream((delta(1, FinishReason.LENGTH),))])
    await tiers.answer()
    # A group is asked first without features: by message.
    assert [handle.called_by_reference for handle in tiers.handles] == [
        [True],
        [True],
        [False, True],
    ]


async def test_each_picture_goes_once_where_its_content_leads():
    tiers = Tiers([Stream((delta(1, FinishReason.LENGTH),))])
    others = [replace(PICTURE, content=content) for content in ("abc", "def", "abc")]
    tenant = Tenant("7", cache_salt="7")
    request = replace(REQUEST, pictures=tuple(others), tenant=tenant)
    patches = tuple(Patches(picture, place) for place, picture in enumerate(others))
    prompt = replace(await tiers.tiers.prepare(SOURCE), patches=patches)
    assert [d async for d in tiers.tiers.generate(request, prompt)]
    assert sorted(tiers.handles[1].sessions) == ["7:abc", "7:def"]
    assert [each.cache_salt for each in tiers.asked] == ["7"] * 2
    brought = {features.picture.content: features.ref for features in tiers.jobs[0].features}
    assert brought == {"abc": "features of 2", "def": "features of 1"}


async def test_text_alone_goes_by_message():
    tiers = Tiers([Stream((delta(1, FinishReason.LENGTH),))])
    request = replace(REQUEST, prompt=(1, 2), pictures=())
    prompt = replace(
        await tiers.tiers.prepare(PrepareRequest("r", Conversation(()), ())), patches=()
    )
    assert [d async for deltas in tiers.tiers.generate(request, prompt) for d in deltas]
    assert [handle.called_by_reference for handle in tiers.handles] == [[False], [], [False]]


async def test_features_reach_the_decoder_and_deltas_the_gateway():
    end = delta(2, FinishReason.LENGTH)
    tiers = Tiers([Stream((delta(1),), (end,))])
    assert await tiers.answer() == [delta(1), end]
    assert tiers.jobs[0].features[0].ref == "features of patches-1"
    assert tiers.metrics.time_to_first_token.value == 1
    assert tiers.metrics.prompt_tokens.value == 4
    assert tiers.metrics.completion_tokens.value == 2


@pytest.mark.parametrize(
    "loss",
    [DIED, OwnerDiedError("00", None, ""), as_task_error(GroupError("rank 1 died")), CUT],
    ids=["actor", "owner", "group", "connection"],
)
async def test_a_loss_before_the_first_token_is_retried_with_pictures_prepared_again(loss):
    tiers = Tiers([Stream(loss), Stream((delta(1, FinishReason.LENGTH),))])
    assert [d.token_ids for d in await tiers.answer()] == [(1,)]
    assert tiers.prepared == tiers.encoded == 2
    assert tiers.jobs[1].features[0].ref == "features of patches-2"
    assert tiers.metrics.retries.value == 1
    assert [job.request.attempt for job in tiers.jobs] == [1, 2]


async def test_pictures_that_have_changed_when_they_are_fetched_again_are_an_error():
    tiers = Tiers([Stream(DIED)])
    was = replace(PICTURE, content="as it was")
    prompt = replace(await tiers.tiers.prepare(SOURCE), patches=(Patches(was, "patches-0"),))
    request = replace(REQUEST, pictures=(was,))
    with pytest.raises(GenerationFailed, match="changed"):
        _ = [deltas async for deltas in tiers.tiers.generate(request, prompt)]
    assert (tiers.prepared, len(tiers.jobs)) == (2, 1)


async def test_a_loss_after_the_first_token_is_an_error_and_never_repeats_tokens():
    tiers = Tiers([Stream((delta(1),), DIED), Stream((delta(1),))])
    with pytest.raises(GenerationFailed):
        await tiers.answer()
    assert len(tiers.jobs) == 1
    assert tiers.metrics.failures.value == 1


async def test_tiers_that_stay_lost_end_in_overloaded_not_in_a_loop():
    tiers = Tiers([Stream(DIED)] * serve_handles.ATTEMPTS)
    with pytest.raises(Overloaded):
        await tiers.answer()
    assert len(tiers.jobs) == serve_handles.ATTEMPTS


async def test_a_refused_request_is_the_callers_fault_and_is_not_retried():
    refused = as_task_error(RequestError("max_tokens", "too many"))
    tiers = Tiers([Stream(refused)])
    with pytest.raises(InvalidRequest) as error:
        await tiers.answer()
    assert (error.value.param, len(tiers.jobs)) == ("max_tokens", 1)


@pytest.mark.parametrize(
    "error", [BackPressureError(num_queued_requests=1, max_queued_requests=1), QueueFullError("9")]
)
async def test_a_full_tier_is_overloaded(error):
    with pytest.raises(Overloaded):
        await Tiers([Stream(error)]).answer()


async def test_unknown_failures_tell_the_caller_nothing_of_the_inside():
    tiers = Tiers([Stream(as_task_error(ValueError("secret path /x")))])
    with pytest.raises(ServerFault) as error:
        await tiers.answer()
    assert "secret" not in str(error.value)


async def test_preparation_is_retried_on_a_lost_tier_and_refused_otherwise():
    tiers = Tiers([], prepares=[DIED, None])
    assert (await tiers.tiers.prepare(SOURCE)).source is SOURCE
    refusal = as_task_error(InvalidRequest("not a picture", param="messages[0]"))
    with pytest.raises(InvalidRequest, match="not a picture") as error:
        await Tiers([], prepares=[refusal]).tiers.prepare(SOURCE)
    assert error.value.param == "messages[0]"


async def test_closing_the_generator_cancels_the_replicas_stream():
    stream = Stream((delta(1),), (delta(2),))
    tiers = Tiers([stream])
    prompt = await tiers.tiers.prepare(SOURCE)
    generator = tiers.tiers.generate(REQUEST, prompt)
    await anext(generator)
    await generator.aclose()
    assert stream.cancelled


async def test_a_stream_that_ended_is_not_cancelled():
    stream = Stream((delta(1, FinishReason.LENGTH),))
    await Tiers([stream]).answer()
    await asyncio.sleep(0)
    assert not stream.cancelled


def test_unwrap_gives_back_what_the_tier_raised():
    cause = RequestError("stop", "empty")
    assert unwrap(as_task_error(cause)) is cause
    assert unwrap(cause) is cause


async def test_abort_reaches_every_group():
    heard: list[tuple[str, str, Any]] = []
    tiers = Tiers([])
    tiers.broadcast_to(
        lambda method, argument: heard.append(("one", method, argument)),
        lambda method, argument: heard.append(("two", method, argument)),
    )
    await tiers.tiers.abort(["r", "s"])
    assert heard == [("one", "abort", ("r", "s")), ("two", "abort", ("r", "s"))]


def fails(method: str, argument: Any) -> Any:
    raise as_task_error(GroupError("rank 1 died"))


@pytest.mark.parametrize(
    "replicas", [(), (lambda method, argument: (), fails)], ids=["none", "one"]
)
async def test_a_group_that_does_not_answer_leaves_nothing_final(replicas):
    tiers = Tiers([])
    tiers.broadcast_to(*replicas)
    with pytest.raises(Overloaded):
        await tiers.tiers.abort(["r"])
    with pytest.raises(Overloaded):
        await tiers.tiers.journal({})


async def test_each_group_tells_of_itself_and_a_lost_one_is_not_left_out():
    stats = EngineStats(1, 0, 128, 120, 40, 7, 0, 9, last_token_at=None)
    pulse = Pulse("one", 0.5, 30.0, stats, (17, 18))
    tiers = Tiers([])
    assert await tiers.tiers.groups() == []
    tiers.broadcast_to(lambda method, argument: pulse if method == "pulse" else None, fails)
    assert await tiers.tiers.groups() == [pulse, None]


async def test_journals_of_all_nodes_are_read_and_each_group_told_once():
    near = JournalPage("near", 10, (Tally("r", 1, 0, output=1),))
    further = JournalPage("near", 20, (Tally("r", 1, 0, output=2),))
    far = JournalPage("far", 5, (Tally("s", 1, 0, output=1),))
    asked: list[Any] = []

    def answering(*pages: JournalPage) -> Callable[[str, Any], Any]:
        def answer(method: str, argument: Any) -> tuple[JournalPage, ...]:
            asked.append((method, argument))
            return pages

        return answer

    tiers = Tiers([])
    tiers.broadcast_to(answering(near), answering(further), answering(near, far))
    assert set(await tiers.tiers.journal({"near": 3})) == {further, far}
    assert asked == [("journal", {"near": 3})] * 3


class Slow:
    """A call or a stream that waits until it is let go."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.let_go = asyncio.Event()

    async def wait(self) -> None:
        self.begun.set()
        await self.let_go.wait()


async def test_a_request_aborted_while_its_pictures_are_encoded_never_reaches_a_group(monkeypatch):
    tiers = Tiers([Stream((delta(1, FinishReason.LENGTH),))])
    tiers.broadcast_to(lambda method, argument: None)
    slow = Slow()

    async def encode(self: Any, *asked: Any) -> dict[Picture, Features]:
        await slow.wait()
        return {}

    monkeypatch.setattr(ServeTiers, "_encode", encode)
    answer = asyncio.create_task(tiers.answer())
    await slow.begun.wait()
    await tiers.tiers.abort(["r"])
    slow.let_go.set()
    (last,) = await answer
    assert (last.finish_reason, last.prompt_tokens) == (FinishReason.ABORT, 0)
    assert tiers.jobs == []


async def test_a_request_aborted_between_two_attempts_is_not_sent_again(monkeypatch):
    tiers = Tiers([Stream(DIED), Stream((delta(1, FinishReason.LENGTH),))])
    tiers.broadcast_to(lambda method, argument: None)
    slow = Slow()

    async def sleep(seconds: float) -> None:
        await slow.wait()

    waits = SimpleNamespace(sleep=sleep, gather=asyncio.gather)
    monkeypatch.setattr(serve_handles, "asyncio", waits)
    answer = asyncio.create_task(tiers.answer())
    await slow.begun.wait()
    await tiers.tiers.abort(["r"])
    slow.let_go.set()
    (last,) = await answer
    assert (last.finish_reason, last.attempt) == (FinishReason.ABORT, 2)
    assert len(tiers.jobs) == 1


async def test_an_abort_is_forgotten_with_its_request():
    end = delta(1, FinishReason.LENGTH)
    tiers = Tiers([Stream((end,)), Stream((end,))])
    tiers.broadcast_to(lambda method, argument: None)
    await tiers.tiers.abort(["r"])
    assert await tiers.answer() == [end]
    assert await tiers.answer() == [end]
