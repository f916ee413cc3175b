from __future__ import annotations

import pytest

from shards.tool_calls import is_tool_call_id, tool_call_id


def test_made_ids_are_nine_letters_that_follow_from_the_seed():
    ids = {tool_call_id(f"call_{number}") for number in range(2000)}
    assert len(ids) == 2000
    assert all(is_tool_call_id(made) for made in ids)
    assert tool_call_id("call_1") == tool_call_id("call_1")


@pytest.mark.parametrize(
    "text", ["a1B2c3D4", "a1B2c3D4e5", "a1B2c3D4é", "a1B2c3D4e\n", "call_1234"]
)
def test_what_is_no_id(text):
    assert not is_tool_call_id(text)
