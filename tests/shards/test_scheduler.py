from __future__ import annotations

import pytest

from shards.errors import ContextLengthError, QueueFullError, RequestError
from shards.generation import Generation
from shards.grid import Grid
from shards.request import FinishReason
from shards.scheduler import Limits, Scheduler
from shards.step import PictureKey, PictureRows
from tests.shards.engine_fixtures import IMG, picture_request, text_request

LIMITS = {
    "num_blocks": 16,
    "block_size": 4,
    "max_context_tokens": 64,
    "max_batch_sequences": 4,
    "max_step_tokens": 8,
    "max_waiting": 2,
}


def scheduler(**changes) -> Scheduler:
    return Scheduler(Limits(**(LIMITS | changes)))


def generation(request, block_size=4) -> Generation:
    positions = tuple(i for i, token in enumerate(request.prompt) if token == IMG)
    return Generation(request, block_size=block_size, image_positions=positions)


def run_step(scheduler: Scheduler) -> list[tuple[str, int, int, int, bool]]:
    """(request, choice, start, tokens, drawn) of each sequence, after advancing them."""
    schedule, seen = scheduler.schedule(), []
    for choice, step in zip(schedule.choices, schedule.plan.sequences, strict=True):
        scheduler.advance(choice, len(step.token_ids))
        drawn = step.sample is not None
        if drawn:
            choice.append(99)
        request_id = choice.generation.request.request_id
        seen.append((request_id, choice.index, step.start, len(step.token_ids), drawn))
    scheduler.check()
    return seen


def test_prompts_are_prefilled_in_chunks_beside_decoding():
    batch = scheduler()
    batch.add(generation(text_request("short", "abc", max_tokens=9)))
    batch.add(generation(text_request("long", "a" * 20, max_tokens=9)))
    assert run_step(batch) == [("short", 0, 0, 3, True), ("long", 0, 0, 5, False)]
    assert run_step(batch) == [("short", 0, 3, 1, True), ("long", 0, 5, 7, False)]
    assert run_step(batch) == [("short", 0, 4, 1, True), ("long", 0, 12, 7, False)]
    assert run_step(batch) == [("short", 0, 5, 1, True), ("long", 0, 19, 1, True)]
    assert run_step(batch) == [("short", 0, 6, 1, True), ("long", 0, 20, 1, True)]


def test_choices_share_the_full_prompt_blocks_and_recompute_the_rest():
    batch = scheduler(max_step_tokens=32)
    forking = generation(text_request("r", "a" * 10, max_tokens=3, n=3))
    batch.add(forking)
    assert run_step(batch) == [("r", 0, 0, 10, True)]
    assert run_step(batch) == [("r", 0, 10, 1, True), ("r", 1, 8, 2, True), ("r", 2, 8, 2, True)]
    tables = [choice.block_table for choice in forking.choices]
    assert tables[0][:2] == tables[1][:2] == tables[2][:2]
    assert len({table[2] for table in tables}) == 3


def test_a_prompt_that_fills_its_blocks_still_leaves_a_token_to_recompute():
    batch = scheduler(max_step_tokens=32)
    batch.add(generation(text_request("r", "a" * 8, max_tokens=3, n=2)))
    run_step(batch)
    assert run_step(batch) == [("r", 0, 8, 1, True), ("r", 1, 4, 4, True)]


def test_choices_that_finish_early_leave_the_shared_blocks_to_the_others():
    batch = scheduler(max_step_tokens=32)
    forking = generation(text_request("r", "a" * 10, max_tokens=3, n=2))
    batch.add(forking)
    run_step(batch)
    forking.choices[0].finish_reason = FinishReason.STOP
    batch.finish(forking.choices[0])
    batch.check()
    assert batch.blocks.free == 14
    assert run_step(batch) == [("r", 1, 8, 2, True)]
    forking.choices[1].finish_reason = FinishReason.STOP
    batch.finish(forking.choices[1])
    assert batch.blocks.free == 16
    assert not batch.running


def test_a_request_waits_until_the_worst_case_of_all_fits():
    batch = scheduler(num_blocks=8)
    batch.add(generation(text_request("first", "abcd", max_tokens=17)))  # 20 positions: 5 blocks
    batch.add(generation(text_request("second", "abcd", max_tokens=10)))  # 13 positions: 4 blocks
    assert [seen[0] for seen in run_step(batch)] == ["first"]
    first = batch.running[0].choices[0]
    first.finish_reason = FinishReason.STOP
    batch.finish(first)
    assert [seen[0] for seen in run_step(batch)] == ["second"]


def test_a_small_late_request_does_not_overtake():
    batch = scheduler(num_blocks=8)
    batch.add(generation(text_request("first", "abcd", max_tokens=17)))
    batch.add(generation(text_request("big", "abcd", max_tokens=17)))
    batch.add(generation(text_request("small", "ab", max_tokens=2)))
    assert [seen[0] for seen in run_step(batch)] == ["first"]


def test_seats_count_choices():
    batch = scheduler(max_batch_sequences=3)
    batch.add(generation(text_request("two", max_tokens=2, n=2)))
    batch.add(generation(text_request("also two", max_tokens=2, n=2)))
    assert len(batch.running) == 1
    with pytest.raises(RequestError, match="n: 4 choices; 3 run at once"):
        batch.add(generation(text_request("four", max_tokens=2, n=4)))


def test_what_can_never_fit_is_refused_with_the_numbers():
    batch = scheduler(num_blocks=8)
    with pytest.raises(ContextLengthError, match=r"max_tokens: .* 5 tokens and up to 60 .* 64"):
        batch.add(generation(text_request("r", max_tokens=60)))
    with pytest.raises(ContextLengthError, match=r"messages: .* 64 tokens"):
        batch.add(generation(text_request("r", "a" * 64, max_tokens=1)))
    with pytest.raises(ContextLengthError, match=r"need 9 blocks of 4 tokens; .* has 8"):
        batch.add(generation(text_request("r", "a" * 5, max_tokens=29)))
    batch.add(generation(text_request("r", "a" * 5, max_tokens=28)))
    assert batch.running


def test_a_full_waiting_room_refuses_and_keeps_its_guests():
    batch = scheduler(max_batch_sequences=1)
    for name in ("runs", "waits 1", "waits 2"):
        batch.add(generation(text_request(name)))
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        batch.add(generation(text_request("late")))
    assert [one.request.request_id for one in batch.waiting] == ["waits 1", "waits 2"]


def test_feature_rows_follow_their_chunks():
    request = picture_request("r", Grid(2, 3), Grid(1, 2))
    # s e e I I I b I I I e s e e I I e o k
    batch = scheduler()
    guest = generation(request)
    batch.add(guest)
    assert guest.picture_rows(0, 8) == (PictureRows(PictureKey("r", 0), 0, 4),)
    assert guest.picture_rows(8, 16) == (
        PictureRows(PictureKey("r", 0), 4, 6),
        PictureRows(PictureKey("r", 1), 0, 2),
    )
    assert guest.picture_rows(16, 19) == ()


def test_pictures_are_let_go_once_every_choice_is_past_them():
    batch = scheduler(max_step_tokens=4)
    guest = generation(picture_request("r", Grid(2, 3), Grid(1, 2), n=2))
    batch.add(guest)
    let_go: tuple[PictureKey, ...] = ()
    while not let_go:
        run_step(batch)
        let_go = guest.let_go_pictures()
    # The first ends at position 9, inside the 16 that the choices share; the second at 15 too.
    assert let_go == (PictureKey("r", 0),)
    assert guest.choices[0].computed == 12
    assert guest.let_go_pictures() == ()


def test_a_picture_in_the_recomputed_tail_is_kept_for_the_other_choices():
    batch = scheduler(max_step_tokens=32, max_context_tokens=128)
    guest = generation(picture_request("r", Grid(1, 5), n=2, max_tokens=3))
    # s e e I I I I I e o k: blocks of 4 share [0, 8); position 7 is the last [IMG]
    batch.add(guest)
    assert guest.shared_blocks == 2
    run_step(batch)
    assert guest.let_go_pictures() == (PictureKey("r", 0),)
    longer = generation(picture_request("s", Grid(1, 6), n=2, max_tokens=3))
    # the last [IMG] is at 8: choice 1 reads it again
    batch.add(longer)
    run_step(batch)
    assert longer.let_go_pictures() == ()
    run_step(batch)
    assert longer.let_go_pictures() == (PictureKey("s", 0),)


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_limits_name_what_is_wrong(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        scheduler(**{name: 0})


def test_a_step_must_hold_a_full_batch():
    with pytest.raises(ValueError, match="max_step_tokens 3 is below max_batch_sequences 4"):
        scheduler(max_step_tokens=3)
