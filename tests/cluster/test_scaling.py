"""Picture tiers grow under a burst of pictures and shrink after it, vision to nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster.collector import Collector
from tests.cluster.system import System, ask, picture
from tests.waiting import wait_until

SENDERS = 4


def test_picture_tiers_grow_under_a_burst_and_shrink_after_it(
    system: System, collector: Collector
) -> None:
    assert wait_until(lambda: at_rest(system), 90, 0.5), system.tiers()
    assert system.tiers()["Vision"] == 0
    system.chat([picture(64, 40)], max_tokens=1)
    # So few patches are no reason for a second one.
    assert system.tiers()["Vision"] == 1
    large = picture(1024, 1024)

    def tokenize() -> None:
        with system.post([large], path="/v1/tokenize") as response:
            response.read()

    def answer() -> None:
        # Other noise each time, as the features of what was seen before are kept.
        unseen = picture(512, 512)
        system.chat([unseen, {"type": "text", "text": "?"}], max_tokens=1)

    most = dict.fromkeys(("Preprocess", "Vision"), 1)

    def grown() -> bool:
        tiers = system.tiers()
        most.update({tier: max(most[tier], tiers[tier]) for tier in most})
        return min(most.values()) > 1

    with burst(tokenize), burst(answer):
        assert wait_until(grown, 60, 0.5), most
        assert wait_until(lambda: system.tiers()["Vision"] > 1, 30, 0.2), system.tiers()
        several = ask(system, [picture(48 + 16 * (n % 3), 48) for n in range(16)])

    def encoders() -> list[str]:
        return [span.instance for span in collector.spans(several) if span.name == "vision"]

    assert wait_until(lambda: len(encoders()) == 16, 30, 0.2), encoders()
    assert len(set(encoders())) > 1, "one replica encoded all pictures of a request"
    assert wait_until(lambda: at_rest(system), 90, 0.5), system.tiers()
    assert system.tiers()["DecoderGroup"] == 1, "the decoder scales by its own settings"


def at_rest(system: System) -> bool:
    tiers = system.tiers()
    return (tiers["Preprocess"], tiers["Vision"]) == (1, 0)


@contextmanager
def burst(send: Callable[[], None]) -> Iterator[None]:
    """Callers that repeat ``send`` until the block ends."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.is_set():
            send()

    threads = [threading.Thread(target=repeat) for _ in range(SENDERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
