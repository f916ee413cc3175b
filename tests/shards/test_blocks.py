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


def test_names_are_for_blocks_that_somebody_holds():
    blocks = BlockAllocator(2)
    with pytest.raises(BlockAccountingError, match="free and cannot be named"):
        blocks.name(0, b"x")


def test_one_content_keeps_one_block():
    blocks = BlockAllocator(2)
    first, second = blocks.allocate(2)
    blocks.name(first, b"x")
    blocks.name(second, b"x")
    blocks.name(first, b"y")
    assert blocks.find(b"x") == first
    assert blocks.find(b"y") is None
    blocks.release([first, second])
    blocks.check([])
    assert (blocks.free, blocks.idle([first, second])) == (2, 2)
    blocks.share([first])
    assert (blocks.free, blocks.idle([first, second]), blocks.own([first])) == (1, 1, 1)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["take", "share", "name", "find", "drop"]), st.integers(0, 9)),
        max_size=60,
    )
)
def test_books_balance_whatever_is_done(actions):
    """Against a model: the tables there are, and what was last said of each block's content."""
    blocks = BlockAllocator(8)
    tables: list[list[int]] = []
    contents: dict[int, int] = {}
    for action, number in actions:
        table = tables[number % len(tables)] if tables else None
        if action == "take" and number <= blocks.free:
            tables.append(blocks.allocate(number))
            for block in tables[-1]:
                contents.pop(block, None)
        elif action == "find":
            found = blocks.find(bytes([number]))
            if found is not None:
                assert contents[found] == number
                blocks.share([found])
                tables.append([found])
        elif table is None:
            continue
        elif action == "share":
            blocks.share(table)
            tables.append(list(table))
        elif action == "name" and table:
            blocks.name(table[0], bytes([number]))
            if blocks.find(bytes([number])) == table[0]:
                contents[table[0]] = number
        elif action == "drop":
            tables.remove(table)
            blocks.release(table)
        blocks.check(tables)
        assert blocks.free == 8 - len({block for table in tables for block in table})
