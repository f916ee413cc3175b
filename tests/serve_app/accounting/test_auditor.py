"""What was computed and not charged is waste; what was charged and not computed is told."""

from __future__ import annotations

import pytest

from serve_app.accounting.auditor import Audit
from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Charge, Outcome
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.tokens import Tokens
from shards.tally import Tally
from tests.serve_app.accounting.books import Books
from tests.serve_app.accounting.sweeping import PATIENCE_S, World


@pytest.fixture
async def world(database: Database) -> World:
    books = Books(database)
    return World(database, await books.key("key"), books)


async def test_what_was_lost_and_what_failed_is_waste(world):
    """LiteLLM #39455: retries inflate counts."""
    retried = await world.settled(Outcome.COMPLETED, Charge(2, 0, Tokens(text=20, output=7)))
    failed = await world.settled(Outcome.FAILED)
    refused = await world.settled(Outcome.REFUSED)
    world.engines.compute(
        Tally(retried, 1, 0, text=16),
        Tally(retried, 2, 0, text=20, output=7),
        Tally(failed, 1, 0, cached_text=16, text=4, output=3),
    )
    world.engines.last_words[retried] = [Tally(retried, 1, 0, text=20, output=2)]
    report = await world.sweep()
    assert report.audit == Audit(audited=3, wasteful=2)
    assert sorted(world.engines.aborted) == sorted([retried, failed, refused])
    assert await world.lines(retried) == {
        ("team", 2, 0, "text"): 20,
        ("team", 2, 0, "output"): 7,
        ("waste", 1, 0, "text"): 20,
        ("waste", 1, 0, "output"): 2,
    }
    assert await world.lines(failed) == {
        ("waste", 1, 0, "cached_text"): 16,
        ("waste", 1, 0, "text"): 4,
        ("waste", 1, 0, "output"): 3,
    }
    await world.is_at_rest()


async def test_drafts_that_were_computed_for_nothing_are_waste_whatever_became_of_the_answer(world):
    answered = await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(text=20, output=7)))
    left = await world.settled(Outcome.DISCONNECTED, Charge(1, 1, Tokens(output=2)))
    failed = await world.settled(Outcome.FAILED)
    world.engines.compute(
        Tally(answered, 1, 0, text=20, output=7, rejected_draft=4),
        Tally(left, 1, 0, rejected_draft=1),
        Tally(left, 1, 1, output=2, rejected_draft=2),
        Tally(failed, 1, 0, output=3, rejected_draft=5),
    )
    assert (await world.sweep()).audit == Audit(audited=3, wasteful=3)
    assert await world.lines(answered) == {
        ("team", 1, 0, "text"): 20,
        ("team", 1, 0, "output"): 7,
        ("waste", 1, 0, "rejected_draft"): 4,
    }
    assert await world.lines(left) == {
        ("team", 1, 1, "output"): 2,
        ("waste", 1, 0, "rejected_draft"): 1,
        ("waste", 1, 1, "rejected_draft"): 2,
    }
    assert await world.lines(failed) == {
        ("waste", 1, 0, "output"): 3,
        ("waste", 1, 0, "rejected_draft"): 5,
    }
    await world.is_at_rest()


async def test_an_answer_that_was_complete_at_once_is_not_asked_after(world):
    request_id = await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(output=7)))
    world.engines.compute(Tally(request_id, 1, 0, output=7))
    assert (await world.sweep()).audit == Audit(audited=1)
    assert world.engines.aborted == []
    await world.is_at_rest()


async def test_counts_that_come_late_are_audited_after_all(world):
    """A gateway that was paused sends its request off after another had voided the hold."""
    request_id = await world.hold()
    await world.sweep()
    world.engines.compute(Tally(request_id, 1, 0, text=20, output=3))
    report = await world.sweep()
    assert report.intake.reopened == 1
    assert (await world.sweep()).audit == Audit(audited=1, wasteful=1)
    assert (await world.lines(request_id))["waste", 1, 0, "output"] == 3
    await world.is_at_rest()


async def test_a_charge_waits_for_its_count_and_is_then_proven(world):
    request_id = await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(output=7)))
    world.now_us += (PATIENCE_S - 1) * MICROSECONDS
    assert (await world.sweep()).audit == Audit(waiting=1)
    world.engines.compute(Tally(request_id, 1, 0, output=7))
    assert (await world.sweep()).audit == Audit(audited=1)
    await world.is_at_rest()


async def test_a_charge_whose_count_never_comes_is_unproven_and_said_so_once(world, caplog):
    """Its node is gone with its journal: neither waited for for ever, nor passed over."""
    await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(output=7)))
    world.now_us += PATIENCE_S * MICROSECONDS
    assert (await world.sweep()).audit == Audit(audited=1, unproven=1)
    assert (await world.sweep()).audit == Audit()
    assert "without a count" in caplog.text


async def test_a_charge_above_the_count_is_an_alarm_and_stays_visible(world, caplog):
    request_id = await world.settled(Outcome.COMPLETED, Charge(1, 0, Tokens(text=5, output=7)))
    world.engines.compute(Tally(request_id, 1, 0, text=5, output=6, cached_text=1))
    assert (await world.sweep()).audit == Audit(waiting=1)
    world.now_us += PATIENCE_S * MICROSECONDS
    assert (await world.sweep()).audit == Audit(audited=1, wasteful=1, alarms=1)
    assert (await world.sweep()).audit == Audit()
    assert "disagree" in caplog.text
    assert (await world.lines(request_id))["team", 1, 0, "output"] == 7, "lines are never changed"
    async with world.database.read() as connection:
        assert not (await reconcile(connection)).agrees
