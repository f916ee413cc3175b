from shards.choice import Choice
from shards.fairness import Account
from shards.generation import Generation
from shards.holdings import Holdings
from shards.limits import Limits
from tests.shards.engine_fixtures import text_request

LIMITS = Limits(
    num_blocks=12,
    block_size=4,
    max_context_tokens=64,
    max_batch_sequences=8,
    max_step_tokens=8,
    max_waiting=2,
)
TEAM = Account(weight=1)


def seated(*tables: list[int]) -> list[Choice]:
    """Choices of one team on these blocks."""
    choices = Generation(text_request("r", n=len(tables)), block_size=4).choices
    for choice, table in zip(choices, tables, strict=True):
        choice.generation.account = TEAM
        choice.block_table = table
    return choices


def test_a_block_in_several_tables_is_held_once_and_until_the_last_is_given():
    holdings = Holdings(seated([0, 1, 2, 3], [0, 1, 2, 4], [5, 6]), present=2, limits=LIMITS)
    assert holdings.exceed(TEAM)
    holdings.give(TEAM, [0, 1, 2, 4])
    assert not holdings.exceed(TEAM)
    assert not holdings.would_exceed(TEAM, [], 0)
    assert holdings.would_exceed(TEAM, [], 1)
    holdings.give(TEAM, [0, 1, 2, 3])
    assert not holdings.would_exceed(TEAM, [], 4)


def test_blocks_that_a_prompt_finds_count_unless_its_team_holds_them():
    holdings = Holdings(seated([0, 1, 2, 3]), present=2, limits=LIMITS)
    assert not holdings.would_exceed(TEAM, [0, 1, 2], 2)
    assert holdings.would_exceed(TEAM, [0, 1, 7], 2)


def test_a_team_is_due_its_part_of_the_seats_and_one_at_least():
    assert not Holdings(seated([0], [1]), present=4, limits=LIMITS).exceed(TEAM)
    assert Holdings(seated([0], [1], [2]), present=4, limits=LIMITS).exceed(TEAM)
    many = Holdings([], present=100, limits=LIMITS)
    assert not many.would_exceed(TEAM, [], 0)
