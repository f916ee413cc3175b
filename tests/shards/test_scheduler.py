from __future__ import annotations

import pytest

from shards.batch import Batch
from shards.errors import ContextLengthError, QueueFullError, RequestError
from shards.generation import Generation
from shards.grid import Grid
from shards.limits import Limits
from shards.request import FinishReason, TokenLogprob
from shards.scheduler import Scheduler
from shards.step import PictureKey, StepPlan
from tests.shards.engine_fixtures import IMG, picture_request, text_request

LIMITS = {
    "num_blocks": 16,
    "block_size": 4,
    "max_context_tokens": 64,
    "max_batch_sequences": 4,
    "max_step_tokens": 8,
    "max_waiting": 2,
}


TOKEN = TokenLogprob(99, 0.0)


class Driven(Scheduler):
    """With a rank's mirror beside it that draws 99 whenever something is drawn."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.batch = Batch(IMG)
        self.plan = StepPlan()

    def step(self) -> list[tuple[str, int, int, int, bool]]:
        """(request, choice, start, tokens, drawn) of each choice that is computed."""
        schedule, seen = self.schedule(), []
        self.plan = schedule.plan
        works = {work.row: work for work in self.batch.apply(schedule.plan)}
        assert works.keys() == {choice.row for choice in schedule.choices}
        for choice in sorted(schedule.choices, key=list(self.seated).index):
            assert choice.row is not None
            work = works[choice.row]
            assert (work.start, work.count) == (choice.computed, choice.planned)
            drawn = [TOKEN] * len(work.samples)
            work.sequence.accept(work, drawn)
            self.advance(choice, len(drawn))
            choice.output += [token.token_id for token in drawn]
            self.settle(choice)
            request_id = choice.generation.request.request_id
            seen.append((request_id, choice.index, work.start, work.count, bool(drawn)))
        self.check()
        return seen

    def end(self, generation: Generation, index: int = 0) -> None:
        choice = generation.choices[index]
        choice.finish_reason = FinishReason.STOP
        self.finish(choice)


def scheduler(**changes) -> Driven:
    return Driven(Limits(**(LIMITS | changes)))


def generation(request, block_size=4) -> Generation:
    positions = tuple(i for i, token in enumerate(request.prompt) if token == IMG)
    return Generation(request, block_size=block_size, image_positions=positions)


def added(batch: Driven, request) -> Generation:
    made = generation(request)
    batch.add(made)
    return made


# -- steps ------------------------------------------------------------------------------------


def test_prompts_are_prefilled_in_chunks_beside_decoding():
    batch = scheduler()
    added(batch, text_request("short", "abc", max_tokens=9))
    added(batch, text_request("long", "a" * 20, max_tokens=9))
    assert batch.step() == [("short", 0, 0, 3, True), ("long", 0, 0, 5, False)]
    assert batch.step() == [("short", 0, 3, 1, True), ("long", 0, 5, 7, False)]
    assert batch.step() == [("short", 0, 4, 1, True), ("long", 0, 12, 7, False)]
    assert batch.step() == [("short", 0, 5, 1, True), ("long", 0, 19, 1, True)]
    assert batch.step() == [("short", 0, 6, 1, True), ("long", 0, 20, 1, True)]


def test_who_decodes_needs_no_words_but_for_a_new_block():
    batch = scheduler(max_step_tokens=32)
    for name in "abc":
        added(batch, text_request(name, name * 7, max_tokens=9))
    batch.step()
    assert len(batch.plan.begun) == 3
    batch.step()  # position 7, in the second block
    assert batch.plan == StepPlan()
    batch.step()
    assert [advance.count for advance in batch.plan.advances] == [1, 1, 1]
    assert [len(advance.blocks) for advance in batch.plan.advances] == [1, 1, 1]
    batch.step()
    assert batch.plan == StepPlan()


def test_rows_are_few_and_used_again():
    batch = scheduler(max_batch_sequences=2, num_blocks=64)
    for number in range(12):
        one = added(batch, text_request(f"{number}", max_tokens=9))
        batch.step()
        assert {begin.row for begin in batch.plan.begun} <= {0, 1}
        batch.end(one)


def test_a_row_that_ended_is_told_with_the_next_step_that_computes():
    batch = scheduler()
    one = added(batch, text_request("one", max_tokens=9))
    batch.step()
    batch.end(one)
    assert batch.schedule().plan == StepPlan()
    added(batch, text_request("two", max_tokens=9))
    batch.step()
    assert (batch.plan.ended, batch.plan.begun[0].row) == ((0,), 0)


def test_a_seat_that_no_rank_heard_of_ends_without_a_word():
    batch = scheduler()
    batch.end(added(batch, text_request("gone", max_tokens=9)))
    added(batch, text_request("stays", max_tokens=9))
    batch.step()
    assert batch.plan.ended == ()


# -- choices ----------------------------------------------------------------------------------


def test_choices_share_the_full_prompt_blocks_and_recompute_the_rest():
    batch = scheduler(max_step_tokens=32)
    forking = added(batch, text_request("r", "a" * 10, max_tokens=3, n=3))
    assert batch.step() == [("r", 0, 0, 10, True)]
    assert batch.step() == [("r", 0, 10, 1, True), ("r", 1, 8, 2, True), ("r", 2, 8, 2, True)]
    tables = [choice.block_table for choice in forking.choices]
    assert tables[0][:2] == tables[1][:2] == tables[2][:2]
    assert len({table[2] for table in tables}) == 3


def test_a_prompt_that_fills_its_blocks_still_leaves_a_token_to_recompute():
    batch = scheduler(max_step_tokens=32)
    added(batch, text_request("r", "a" * 8, max_tokens=3, n=2))
    batch.step()
    assert batch.step() == [("r", 0, 8, 1, True), ("r", 1, 4, 4, True)]


def test_choices_that_finish_early_leave_the_shared_blocks_to_the_others():
    batch = scheduler(max_step_tokens=32)
    forking = added(batch, text_request("r", "a" * 10, max_tokens=3, n=2))
    batch.step()
    batch.end(forking)
    batch.check()
    assert batch.blocks.free == 16
    assert batch.step() == [("r", 1, 8, 2, True)]
    batch.end(forking, 1)
    assert batch.blocks.free == 16
    assert not batch.seated


# -- admission --------------------------------------------------------------------------------


def test_short_answers_are_sure_of_their_room():
    """Within the headroom, a request waits until the longest answers of all fit."""
    batch = scheduler(num_blocks=8)
    first = added(batch, text_request("first", "abcd", max_tokens=17))  # 20 positions: 5 blocks
    added(batch, text_request("second", "abcd", max_tokens=10))  # 13 positions: 4 blocks
    assert [seen[0] for seen in batch.step()] == ["first"]
    batch.end(first)
    assert [seen[0] for seen in batch.step()] == ["second"]


def test_long_answers_are_not_waited_for():
    batch = scheduler(num_blocks=8, headroom_tokens=4)
    added(batch, text_request("first", "abcd", max_tokens=28))  # to the last block
    added(batch, text_request("second", "abcd", max_tokens=28))
    assert [seen[0] for seen in batch.step()] == ["first", "second"]


def test_a_small_late_request_does_not_overtake():
    batch = scheduler(num_blocks=8)
    added(batch, text_request("first", "abcd", max_tokens=17))
    added(batch, text_request("big", "abcd", max_tokens=17))
    added(batch, text_request("small", "ab", max_tokens=2))
    assert [seen[0] for seen in batch.step()] == ["first"]


def test_seats_count_choices():
    batch = scheduler(max_batch_sequences=3, max_step_tokens=32)
    added(batch, text_request("two", max_tokens=2, n=2))
    added(batch, text_request("also two", max_tokens=2, n=2))
    batch.step()
    assert [seen[:2] for seen in batch.step()] == [("two", 0), ("also two", 0), ("two", 1)]
    with pytest.raises(RequestError, match="n: 4 choices; 3 run at once"):
        added(batch, text_request("four", max_tokens=2, n=4))


def test_what_can_never_fit_is_refused_with_the_numbers():
    batch = scheduler(num_blocks=8)
    with pytest.raises(ContextLengthError, match=r"max_tokens: .* 5 tokens and up to 60 .* 64"):
        added(batch, text_request("r", max_tokens=60))
    with pytest.raises(ContextLengthError, match=r"messages: .* 64 tokens"):
        added(batch, text_request("r", "a" * 64, max_tokens=1))
    with pytest.raises(ContextLengthError, match=r"need 9 blocks of 4 tokens; .* has 8"):
        added(batch, text_request("r", "a" * 5, max_tokens=29))
    added(batch, text_request("r", "a" * 5, max_tokens=28))
    assert batch.seated


def test_a_full_waiting_room_refuses_and_keeps_its_guests():
    batch = scheduler(max_batch_sequences=1)
    for name in ("runs", "waits 1", "waits 2"):
        added(batch, text_request(name))
    with pytest.raises(QueueFullError, match="2 requests wait already"):
        added(batch, text_request("late"))
    assert [one.request.request_id for one in batch.waiting] == ["waits 1", "waits 2"]


# -- pictures ---------------------------------------------------------------------------------


def test_a_choice_brings_the_pictures_that_it_is_going_to_read():
    batch = scheduler()
    # s e e I I I b I I I e s e e I I e o k
    guest = added(batch, picture_request("r", Grid(2, 3), Grid(1, 2)))
    choice = guest.choices[0]
    assert guest.pictures_missing(choice) == [0, 1]
    guest.held.add(1)
    assert guest.pictures_missing(choice) == [0]
    choice.computed = 9
    assert guest.pictures_missing(choice) == [0]
    choice.computed = 10  # its end is text to the model
    assert guest.pictures_missing(choice) == []


def test_pictures_are_let_go_once_every_choice_is_past_them():
    batch = scheduler(max_step_tokens=4)
    guest = added(batch, picture_request("r", Grid(2, 3), Grid(1, 2), n=2))
    guest.held.update((0, 1))
    let_go: tuple[PictureKey, ...] = ()
    while not let_go:
        batch.step()
        let_go = guest.let_go_pictures()
    # The first ends at position 9, inside the 16 that the choices share; the second at 15 too.
    assert let_go == (PictureKey("r", 0),)
    assert guest.choices[0].computed == 12
    assert guest.let_go_pictures() == ()


def test_a_picture_in_the_recomputed_tail_is_kept_for_the_other_choices():
    batch = scheduler(max_step_tokens=32, max_context_tokens=128)
    guest = added(batch, picture_request("r", Grid(1, 5), n=2, max_tokens=3))
    guest.held.add(0)
    # s e e I I I I I e o k: blocks of 4 share [0, 8); position 7 is the last [IMG]
    assert guest.shared_blocks == 2
    batch.step()
    assert guest.let_go_pictures() == (PictureKey("r", 0),)
    # the last [IMG] is at 8: choice 1 reads it again
    longer = added(batch, picture_request("s", Grid(1, 6), n=2, max_tokens=3))
    longer.held.add(0)
    batch.step()
    assert longer.let_go_pictures() == ()
    batch.step()
    assert longer.let_go_pictures() == (PictureKey("s", 0),)


# -- limits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_limits_name_what_is_wrong(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        scheduler(**{name: 0})


@pytest.mark.parametrize("name", ["max_drafts", "headroom_tokens"])
def test_limits_that_may_be_nothing_may_not_be_less(name):
    scheduler(**{name: 0})
    with pytest.raises(ValueError, match=f"{name} must be at least 0, not -1"):
        scheduler(**{name: -1})


def test_a_step_must_hold_a_full_batch():
    with pytest.raises(ValueError, match="max_step_tokens 3 is below max_batch_sequences 4"):
        scheduler(max_step_tokens=3)
