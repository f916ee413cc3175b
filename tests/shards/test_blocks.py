from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.blocks import BlockAccountingError, BlockAllocator


def test_shared_block_is_free_when_its_last_holder_lets_go():
    blocks = BlockAllocator(3)
    table = blocks.allocate(2)
    blocks.share(table[:1])
    blocks.release(table)
    assert blocks.free == 2
    blocks.check([table[:1]])
    blocks.release(table[:1])
    assert blocks.free == 3
    blocks.check([])


def test_refuses_more_than_is_free_and_takes_nothing():
    blocks = BlockAllocator(2)
    with pytest.raises(BlockAccountingError, match="3 blocks asked for, 2 free"):
        blocks.allocate(3)
    assert blocks.free == 2


def test_refuses_double_release_and_sharing_of_a_free_block():
    blocks = BlockAllocator(2)
    table = blocks.allocate(1)
    blocks.release(table)
    with pytest.raises(BlockAccountingError, match="released twice"):
        blocks.release(table)
    with pytest.raises(BlockAccountingError, match="free and cannot be shared"):
        blocks.share(table)


def test_check_finds_a_leak_and_an_unaccounted_use():
    blocks = BlockAllocator(2)
    table = blocks.allocate(1)
    with pytest.raises(BlockAccountingError, match="in 0 tables but has 1 holders"):
        blocks.check([])
    with pytest.raises(BlockAccountingError, match="in 2 tables but has 1 holders"):
        blocks.check([table, table])


def test_needs_a_block():
    with pytest.raises(ValueError, match="at least one block, not 0"):
        BlockAllocator(0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["take", "share", "drop"]), st.integers(0, 9))))
def test_books_balance_whatever_is_done(actions):
    blocks, tables = BlockAllocator(8), []
    for action, number in actions:
        if action == "take" and number <= blocks.free:
            tables.append(blocks.allocate(number))
        elif action == "share" and tables:
            shared = list(tables[number % len(tables)])
            blocks.share(shared)
            tables.append(shared)
        elif action == "drop" and tables:
            blocks.release(tables.pop(number % len(tables)))
        blocks.check(tables)
        assert blocks.free == 8 - len({block for table in tables for block in table})
