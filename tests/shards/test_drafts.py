from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.blocks import BlockAllocator
from shards.drafts import MAX_MATCH, MIN_MATCH, Proposer
from shards.generation import Generation
from shards.limits import Limits
from shards.planning import plan_step
from shards.request import FinishReason
from shards.simulated import scripted
from shards.step import Advance
from tests.shards.engine_fixtures import (
    EOS,
    drain,
    ids,
    simulated_engine,
    text_request,
    tokens_of,
)
from tests.shards.toy_grammar import Turns


def proposer(text: str) -> Proposer:
    made = Proposer()
    made.learn(ids(text))
    return made


# -- proposals --------------------------------------------------------------------------------


def test_what_followed_before_is_proposed():
    assert proposer("the cat sat the cat").propose(4) == ids(" sat")
    assert proposer("the cat sat the cat").propose(2) == ids(" s")


def test_nothing_is_proposed_without_a_match():
    assert proposer("abcdefg").propose(4) == ()
    assert proposer("ab ab").propose(4) == ()
    assert Proposer().propose(4) == ()


def test_the_longest_match_goes_before_the_latest_and_the_latest_before_others():
    assert proposer("xabc one yabc two xabc").propose(4) == ids(" one")
    assert proposer("xabc one xabc two xabc").propose(4) == ids(" two")


def test_no_more_is_proposed_than_matched():
    assert proposer("abcdefghijkl abc").propose(9) == ids("def")
    assert len(proposer("z" + "abcdefghijklmnopqrs" * 2).propose(99)) == MAX_MATCH


def test_a_loop_goes_on():
    assert proposer("ababababab").propose(7) == ids("abababa")


@settings(max_examples=200, deadline=None)
@given(st.text("abc", max_size=60))
def test_a_proposal_followed_the_same_tokens_before(text: str) -> None:
    drafts = proposer(text).propose(3)
    tokens = list(ids(text))
    looped = [*tokens, *drafts]
    places = range(MIN_MATCH, len(tokens))
    matching = [p for p in places if tokens[p - MIN_MATCH : p] == tokens[-MIN_MATCH:]]
    assert bool(drafts) == bool(matching)
    if drafts:
        assert any(looped[p : p + len(drafts)] == list(drafts) for p in matching)


def test_a_proposer_that_is_refused_rests_ever_longer_and_tries_again():
    refused = proposer("abcd abc")
    rests: list[int] = []
    for _ in range(2000):
        if refused.propose(1):
            refused.judge(1, 0)
            rests.append(0)
        else:
            rests[-1] += 1
    assert max(rests) == 256
    assert rests.count(16) == 1
    assert sum(rests) > 0.95 * 2000


def test_a_proposer_that_is_right_never_rests():
    right = proposer("abcd abc")
    for _ in range(100):
        assert right.propose(1)
        right.judge(1, 1)


# -- in the batch -----------------------------------------------------------------------------

POEM = "row row row your boat gently down the stream "


def steps_and_tokens(reply: Sequence[int], prompt: str, drafts: int, **sampling):
    engine, runner = simulated_engine(
        scripted(reply), max_drafts=drafts, max_step_tokens=64, num_blocks=200
    )
    engine.add(text_request("r", prompt, **sampling))
    deltas = drain(engine)
    return runner.plans, tokens_of(deltas, "r"), deltas, engine.stats()


def test_a_prompt_that_is_copied_takes_fewer_steps_and_the_same_tokens():
    reply = ids(POEM * 2)
    plain, tokens, _, _ = steps_and_tokens(reply, POEM, 0, max_tokens=80)
    quick, same, _, stats = steps_and_tokens(reply, POEM, 8, max_tokens=80)
    assert same == tokens
    assert quick < plain / 3
    assert stats.drafted_tokens_total >= stats.accepted_tokens_total > 60
    assert stats.generated_tokens_total == 80


@pytest.mark.parametrize("length", range(30, 45))
def test_the_longest_answer_ends_where_it_would_have(length):
    _, tokens, deltas, stats = steps_and_tokens(ids(POEM), POEM, 8, max_tokens=length)
    assert tokens == ids(POEM)[:length]
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    assert stats.generated_tokens_total == length


@pytest.mark.parametrize("place", range(10, 40, 3))
def test_an_answer_that_ends_within_accepted_drafts_is_cut_there(place):
    """The drafts run over the end of sequence: it stood in the prompt."""
    reply = [*ids(POEM)]
    reply[place] = EOS
    engine, _ = simulated_engine(scripted(reply), max_drafts=8, max_step_tokens=64)
    prompt = (*reply, *reply)
    request = text_request("r", "x", max_tokens=80)
    object.__setattr__(request, "prompt", prompt)
    engine.add(request)
    deltas = drain(engine)
    assert tokens_of(deltas, "r") == tuple(reply[: place + 1])
    last = deltas[-1]
    assert (last.finish_reason, last.completion_tokens) == (FinishReason.STOP, place + 1)
    (tally,) = engine.tallies()
    assert tally.output == engine.stats().generated_tokens_total == place + 1


def test_a_stop_string_within_accepted_drafts_ends_the_answer():
    _, tokens, deltas, _ = steps_and_tokens(ids(POEM), POEM, 8, max_tokens=80, stop=("down",))
    assert tokens == ids(POEM[: POEM.index("down") + 4])
    assert deltas[-1].stop == "down"


def test_logprobs_come_with_every_token_that_counts():
    _, tokens, deltas, _ = steps_and_tokens(ids(POEM), POEM, 8, max_tokens=40, logprobs=0)
    assert tuple(one.token_id for delta in deltas for one in delta.logprobs) == tokens
    assert not any(math.isnan(one.logprob) for delta in deltas for one in delta.logprobs)


def test_drafts_take_what_prompts_leave_of_a_step():
    engine, runner = simulated_engine(
        scripted(ids(POEM)), max_drafts=8, max_step_tokens=16, num_blocks=200
    )
    engine.add(text_request("copies", POEM, max_tokens=100))
    for _ in range(7):
        engine.step()
    assert any(advance.drafts for advance in runner.ran[-1].advances)
    engine.add(text_request("reads", "x" * 40, max_tokens=1))
    for chunk in (15, 15):
        engine.step()
        assert not any(advance.drafts for advance in runner.ran[-1].advances)
        assert max(advance.count for advance in runner.ran[-1].advances) == chunk
    engine.step()
    assert sum(advance.count for advance in runner.ran[-1].advances) <= 16


@pytest.mark.parametrize(("num_blocks", "drafts"), [(4, ids("cab")), (3, ())])
def test_drafts_leave_a_free_block_to_everybody_seated(num_blocks, drafts):
    """The next token has room in the second block; drafts would need a third."""
    limits = Limits(num_blocks, 4, 64, 1, 8, 1, max_drafts=3)
    blocks = BlockAllocator(num_blocks)
    (choice,) = Generation(text_request("r", "abcabcab"), block_size=4, drafts=True).choices
    choice.row, choice.told, choice.computed = 0, True, 7
    choice.block_table = blocks.allocate(2)
    choice.learn(choice.known)
    schedule = plan_step([choice], (), limits, blocks)
    assert choice.drafts == drafts
    assert schedule.plan.advances == ((Advance(0, 4, (2,), drafts),) if drafts else ())


@pytest.mark.parametrize("length", [20, 33, 41])
def test_no_draft_goes_beyond_the_longest_answer(length):
    engine, runner = simulated_engine(scripted(ids(POEM)), max_drafts=8, max_step_tokens=64)
    engine.add(text_request("r", POEM, max_tokens=length))
    drawn = 0
    while engine.has_work:
        deltas = engine.step()
        drafts = sum(len(advance.drafts) for advance in runner.ran[-1].advances)
        assert drawn + drafts + 1 <= length
        drawn += sum(len(delta.token_ids) for delta in deltas)
    assert drawn == length


@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_nothing_is_guessed_against_a_penalty_on_what_was_said(penalty):
    """Each draft would cost the ranks a look at all that was said, to be the likelier refused."""
    reply = ids(POEM * 2)
    _, _, _, stats = steps_and_tokens(reply, POEM, 8, max_tokens=80, **{penalty: 1.5})
    assert stats.drafted_tokens_total == 0


def test_long_prompts_are_learned_a_little_a_step_by_all_together(monkeypatch):
    monkeypatch.setattr("shards.scheduler.LEARN_LIMIT", 20)
    engine, _ = simulated_engine(max_drafts=4, max_step_tokens=64, num_blocks=200)
    engine.add(text_request("first", "a" * 60, max_tokens=1))
    drain(engine)
    for number in range(3):
        engine.add(text_request(f"{number}", "a" * 60, max_tokens=40, ignore_eos=True))
    learned = [0]
    while engine.has_work:
        engine.step()
        proposers = [one.proposer for one in engine._scheduler.seated if one.proposer is not None]
        if len(proposers) == 3:
            learned.append(sum(map(len, proposers)))
    steps = [after - before for before, after in pairwise(learned)]
    # Once all is known, what is drawn is learned at once.
    assert max(steps) == 20
    assert learned[-1] > 3 * 60


def test_drafts_that_a_grammar_refuses_are_not_computed():
    engine, runner = simulated_engine(max_drafts=8, max_step_tokens=64)
    grammar = Turns("a", "b", "c", "d")
    engine.add(
        text_request("r", "abcdabcabcdabcaabc", max_tokens=24, ignore_eos=True), grammar=grammar
    )
    deltas = drain(engine)
    assert tokens_of(deltas, "r") == ids("abcd" * 6)
    assert grammar.matchers[0].said == list(ids("abcd" * 6))
    for plan in runner.ran:
        for advance in plan.advances:
            assert len(advance.masks) in (0, 1 + len(advance.drafts))
    assert engine.stats().accepted_tokens_total == engine.stats().drafted_tokens_total > 0
