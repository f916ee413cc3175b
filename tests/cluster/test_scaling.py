"""Preprocessing and vision grow under a burst of pictures and shrink after it."""

from __future__ import annotations

import threading

from tests.cluster.system import System, picture, wait_until


def test_picture_tiers_grow_under_a_burst_and_shrink_after_it(system: System) -> None:
    assert system.tiers()["Preprocess"] == 1
    assert system.tiers()["Vision"] == 1
    stop = threading.Event()
    pictures = [picture(1024, 1024, shade) for shade in (20, 60, 100)]

    def send() -> None:
        while not stop.is_set():
            system.chat([*pictures, {"type": "text", "text": "?"}], max_tokens=1)

    senders = [threading.Thread(target=send) for _ in range(6)]
    for sender in senders:
        sender.start()
    try:
        grown = wait_until(lambda: system.tiers()["Preprocess"] > 1, 60, 1)
        grown = grown and wait_until(lambda: system.tiers()["Vision"] > 1, 60, 1)
    finally:
        stop.set()
        for sender in senders:
            sender.join(120)
    assert grown, system.tiers()

    def shrunk() -> bool:
        tiers = system.tiers()
        return tiers["Preprocess"] == tiers["Vision"] == 1

    assert wait_until(shrunk, 60, 1), system.tiers()
    assert system.tiers()["DecoderGroup"] == 1, "the decoder scales on its own signal"
