"""Which features are asked for: those of pictures that the chosen group has not kept."""

from __future__ import annotations

from dataclasses import replace

import pytest

from serve_app import serve_handles
from serve_app.errors import Overloaded
from serve_app.messages import Generate, Lacking, Patches
from shards.request import Delta, FinishReason, Picture
from tests.serve_app.scripted_tiers import PICTURE, REQUEST, SOURCE, Stream, Tiers

END = Delta("r", 0, (1,), 4, 1, FinishReason.LENGTH)
OTHER = replace(PICTURE, content="other")
THIRD = replace(PICTURE, content="third")


def answering(*kept: tuple[Picture, ...]) -> Tiers:
    """``kept``: by the groups that are asked in turn."""
    tiers = Tiers([Stream((END,))])
    tiers.kept = list(kept)
    return tiers


async def ask(tiers: Tiers, *pictures: Picture) -> list[Delta]:
    request = replace(REQUEST, pictures=pictures)
    patches = tuple(Patches(picture, picture.content) for picture in pictures)
    prompt = replace(await tiers.tiers.prepare(SOURCE), patches=patches)
    return [d async for deltas in tiers.tiers.generate(request, prompt) for d in deltas]


def encoded(tiers: Tiers) -> set[str]:
    return {patches.picture.content for asked in tiers.asked for patches in asked.patches}


async def test_a_group_that_has_kept_all_is_asked_once_and_the_vision_tier_never():
    tiers = answering((PICTURE, OTHER))
    assert await ask(tiers, PICTURE, OTHER, PICTURE) == [END]
    assert (tiers.lacked, encoded(tiers), len(tiers.jobs)) == ([], set(), 1)
    assert tiers.handles[2].called_by_reference == [False]


async def test_only_what_the_group_lacks_is_encoded_and_brought():
    tiers = answering((PICTURE,))
    assert await ask(tiers, PICTURE, OTHER) == [END]
    assert (tiers.lacked, encoded(tiers)) == ([(1,)], {"other"})
    assert [features.picture for features in tiers.jobs[0].features] == [OTHER]


async def test_what_another_group_lacks_is_brought_to_it_with_all_the_rest():
    tiers = answering((PICTURE, OTHER), (THIRD,))
    assert await ask(tiers, PICTURE, OTHER, THIRD) == [END]
    assert tiers.lacked == [(2,), (0, 1)]
    assert {features.picture for features in tiers.jobs[0].features} == {PICTURE, OTHER, THIRD}


async def test_what_was_evicted_meanwhile_is_brought_too():
    tiers = answering((PICTURE, OTHER), ())
    assert await ask(tiers, PICTURE, OTHER, THIRD) == [END]
    assert tiers.lacked == [(2,), (0, 1)]


async def test_lacking_costs_no_attempt_and_is_no_loss():
    tiers = answering(())
    await ask(tiers, PICTURE, OTHER)
    assert tiers.jobs[0].request.attempt == 1
    assert tiers.metrics.retries.value == 0


class Stubborn(Tiers):
    def _generate(self, job: Generate) -> Stream:
        return Stream(Lacking((0,)))


async def test_a_group_that_lacks_what_was_brought_ends_in_an_error_not_in_a_loop(monkeypatch):
    monkeypatch.setattr(serve_handles, "RETRY_DELAY_S", 0.0)
    tiers = Stubborn([])
    with pytest.raises(Overloaded):
        await ask(tiers, PICTURE)
    assert len(tiers.handles[2].sessions) == serve_handles.ATTEMPTS * serve_handles.ASKINGS
