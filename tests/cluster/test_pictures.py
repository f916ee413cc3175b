"""Which pictures are encoded when a conversation goes on, seen in the spans of its requests."""

from __future__ import annotations

from tests.cluster.collector import Collector
from tests.cluster.system import System, ask, picture
from tests.waiting import wait_until


def encoded(collector: Collector, request_id: str) -> int:
    """Pictures of a request that went through the vision tier, as far as it has told."""
    return sum(span.name == "vision" for span in collector.spans(request_id))


def test_a_next_turn_asks_the_vision_tier_for_new_pictures_only(
    system: System, collector: Collector
) -> None:
    first, second, third = picture(128, 96), picture(96, 128), picture(80, 80)
    question = {"type": "text", "text": "And now?"}
    turns = (
        ([first, question], 1),
        ([first, question, question], 0),
        ([first, question, second], 1),
        ([second, first, second, question], 0),
        # Told in the order of their ends: after this one, nothing is to come of those before.
        ([third], 1),
    )
    asked = [ask(system, content) for content, _ in turns]
    assert wait_until(lambda: encoded(collector, asked[-1]) > 0, 20, 0.2)
    assert [encoded(collector, each) for each in asked] == [expected for _, expected in turns]


def test_a_group_that_was_replaced_is_brought_what_it_never_had(
    system: System, collector: Collector
) -> None:
    seen = picture(112, 112)
    before = ask(system, [seen])
    for process in system.processes("ServeReplica:pixtral:DecoderGroup"):
        process.kill()
    system.wait_ready()
    after = ask(system, [seen])
    for request_id in (before, after):
        assert wait_until(lambda each=request_id: encoded(collector, each) == 1, 20, 0.2)  # type: ignore[misc]
