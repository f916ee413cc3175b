"""Picture tiers are killed again and again while requests come in: each is answered, and paid once.

With PIXTRAL_SOAK=1 for a quarter of an hour instead of half a minute.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
import time
import urllib.request
from contextlib import suppress

import psutil

from tests.cluster.system import KEY, System, picture

KILLING_S = 900.0 if os.environ.get("PIXTRAL_SOAK") == "1" else 30.0
# A replica takes seconds to come back: one is gone at almost any time, and sometimes all are.
BETWEEN_S = (2.0, 6.0)
SENDERS = 3
SEED = int(os.environ.get("PIXTRAL_SOAK_SEED", "7042"))


def test_every_request_is_answered_once_while_picture_tiers_are_killed(system: System) -> None:
    before = used(system)
    stop, numbers = threading.Event(), itertools.count(1)
    answers: list[dict[str, int]] = []
    failures: list[BaseException] = []

    def send() -> None:
        while not stop.is_set():
            number = next(numbers)
            pictures = [picture(48 + 16 * n, 48) for n in range(number % 4)]
            text = {"type": "text", "text": f"What is in these {number}?"}
            try:
                answer = system.chat([*pictures, text], max_tokens=3)
                answers.append(answer["usage"])
            except BaseException as error:
                failures.append(error)

    senders = [threading.Thread(target=send) for _ in range(SENDERS)]
    for sender in senders:
        sender.start()
    kills = kill_for(system, KILLING_S, random.Random(SEED))
    stop.set()
    for sender in senders:
        sender.join(120)
    assert not failures, (len(failures), failures[:3])
    assert min(kills.values()) > 1, kills
    assert len(answers) > 2 * sum(kills.values())
    assert {usage["completion_tokens"] for usage in answers} == {3}
    charged = used(system)
    assert charged[0] - before[0] == len(answers)
    assert charged[1] - before[1] == sum(usage["total_tokens"] for usage in answers)


def kill_for(system: System, seconds: float, chance: random.Random) -> dict[str, int]:
    """SIGKILL one replica of either picture tier at a time; how many of each died."""
    kills = {"Preprocess": 0, "Vision": 0}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(chance.uniform(*BETWEEN_S))
        for tier in chance.sample(sorted(kills), len(kills)):
            replicas = system.processes(f"ServeReplica:pixtral:{tier}")
            if replicas:
                with suppress(psutil.NoSuchProcess):
                    chance.choice(replicas).kill()
                    kills[tier] += 1
                break
    return kills


def used(system: System) -> tuple[int, int]:
    """Requests and tokens that the ledger has charged."""
    request = urllib.request.Request(
        f"{system.url}/v1/usage", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        total = json.load(response)["total"]
    return total["requests"], total["tokens"]
