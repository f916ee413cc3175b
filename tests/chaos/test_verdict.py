"""The verdict of the chaos test finds what is wrong: otherwise it would prove nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serve_app.decoder.journal import JournalWriter
from shards.tally import Tally
from tests.chaos.traffic import Ending, Seen
from tests.chaos.verdict import WASTE, Books, journal_counts

REVENUE, TEAM, KEY, ORGANISATION = 2, 10, 11, 12


def right() -> Books:
    """One request: 5 text tokens and 3 of output were paid by the team, 2 are waste."""
    hold = {
        "state": "settled",
        "outcome": "completed",
        "owner": "gateway-1",
        "audited_us": 1,
        "team_id": TEAM,
        "key_id": KEY,
        "organisation_id": ORGANISATION,
        "amount_nano_usd": 100,
        **{f"{kind}_price": 2 for kind in ("text", "image", "cached_text", "cached_image")},
        **{f"{kind}_price": 6 for kind in ("output", "rejected_draft")},
    }
    lines = [
        _line(1, TEAM, "text", 5, 10),
        _line(2, TEAM, "output", 3, 18),
        _line(3, WASTE, "output", 2, 12),
    ]
    posted = {WASTE: 12, REVENUE: 40, TEAM: 28, KEY: 28, ORGANISATION: 28}
    return Books(
        holds={"request": hold},
        lines=lines,
        balances=[
            {"account_id": id, "month": "2026-11", "posted_nano_usd": amount, "held_nano_usd": 0}
            for id, amount in posted.items()
        ],
        accounts={
            id: {
                "id": id,
                "scope": "revenue" if id == REVENUE else "other",
                "concurrent": 0,
                "budget_nano_usd": 28 if id == TEAM else None,
            }
            for id in posted
        },
        counted=Counter(
            {("request", 1, 0, "text"): 5, ("request", 1, 0, "output"): 5},
        ),
    )


def _line(id: int, account_id: int, kind: str, tokens: int, nano_usd: int) -> dict[str, Any]:
    return {
        "id": id,
        "request_id": "request",
        "attempt": 1,
        "choice": 0,
        "account_id": account_id,
        "kind": kind,
        "tokens": tokens,
        "nano_usd": nano_usd,
        "month": "2026-11",
    }


def test_books_that_are_right_have_no_problem():
    books = right()
    assert list(books.problems()) == []
    assert books.team_nano_usd + books.waste_nano_usd == books.journal_nano_usd == 40


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "a hold is left": (
        lambda books: books.holds["request"].update(state="held"),
        "still held",
    ),
    "an audit is missing": (
        lambda books: books.holds["request"].update(audited_us=None),
        "never audited",
    ),
    "an amount is left on hold": (
        lambda books: books.balances[2].update(held_nano_usd=1),
        "still holds 1",
    ),
    "a request is counted as running": (
        lambda books: books.accounts[TEAM].update(concurrent=1),
        "counts 1 running",
    ),
    "the engine computed a token more": (
        lambda books: books.counted.update({("request", 1, 0, "output"): 1}),
        "booked 5, computed 6",
    ),
    "another attempt went unnoticed": (
        lambda books: books.counted.update({("request", 2, 0, "text"): 4}),
        "booked 0, computed 4",
    ),
    "a token was booked that nobody computed": (
        lambda books: books.lines.append(_line(4, WASTE, "image", 1, 2)),
        "booked 1, computed 0",
    ),
    "nobody holds for what was computed": (
        lambda books: books.counted.update({("stranger", 1, 0, "text"): 4}),
        "without a hold",
    ),
    "a line has another price": (
        lambda books: books.lines[0].update(nano_usd=11),
        "line 1 costs 11",
    ),
    "another team pays": (
        lambda books: books.lines[0].update(account_id=99),
        "charged to account 99",
    ),
    "a team pays for rejected drafts": (
        lambda books: books.lines[1].update(kind="rejected_draft"),
        "line 2 makes a team pay for rejected drafts",
    ),
    "more is charged than was held": (
        lambda books: books.holds["request"].update(amount_nano_usd=27),
        "27 was held",
    ),
    "a balance is off by a nano-dollar": (
        lambda books: books.balances[2].update(posted_nano_usd=29),
        "posted 29, lines 28",
    ),
    "a budget is exceeded by a nano-dollar": (
        lambda books: books.accounts[TEAM].update(budget_nano_usd=27),
        "spent 28 of 27",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_it_is_found_when(what):
    spoil, message = WRONG[what]
    books = right()
    spoil(books)
    assert any(message in problem for problem in books.problems())


@pytest.mark.parametrize(
    ("ending", "outcome", "usage", "fair"),
    [
        (Ending.ANSWERED, "completed", {"text": 5, "output": 3}, True),
        (Ending.ANSWERED, "completed", {"text": 5, "output": 4}, False),
        (Ending.FAILED, "failed", None, False),
        (Ending.REFUSED, "refused", None, False),
        (Ending.LEFT, "disconnected", None, True),
        (Ending.CUT, "recovered", None, True),
    ],
)
def test_a_team_pays_for_what_its_caller_saw(ending, outcome, usage, fair):
    books = right()
    books.holds["request"]["outcome"] = outcome
    seen = Seen(ending, "request", 200, None if usage is None else Counter(usage))
    assert (not list(books.grievances([seen]))) == fair


def test_an_answer_may_go_unpaid_only_where_its_gateway_died():
    books = right()
    books.lines.clear()
    seen = Seen(Ending.ANSWERED, "request", 200, Counter(text=5, output=3))
    assert list(books.grievances([seen]))
    books.holds["request"]["outcome"] = "recovered"
    assert not list(books.grievances([seen]))


def test_journals_are_read_whole_and_the_last_count_of_each_group_adds_up(tmp_path: Path):
    for group in ("a", "b"):
        writer = JournalWriter(tmp_path, group, segment_bytes=64)
        for count in range(1, 8):
            writer.append([Tally("request", 1, 0, text=5, output=count)])
        writer.close()
    assert len(list(tmp_path.iterdir())) > 2
    assert journal_counts(tmp_path) == {
        ("request", 1, 0, "text"): 10,
        ("request", 1, 0, "output"): 14,
    }
