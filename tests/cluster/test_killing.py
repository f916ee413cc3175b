"""Picture tiers are killed again and again while requests come in: each is answered, and paid once.

With PIXTRAL_SOAK=1 a hundred times instead of six.
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
from tests.waiting import wait_until

KILLS = 100 if os.environ.get("PIXTRAL_SOAK") == "1" else 6
SEED = int(os.environ.get("PIXTRAL_SOAK_SEED", "7042"))
SENDERS = 3
# Between two kills something is answered, or only the time that a replica takes to start is seen.
ANSWERS_BETWEEN = 2
TIERS = ("Preprocess", "Vision")
KINDS = (
    "text_tokens",
    "image_tokens",
    "cached_text_tokens",
    "cached_image_tokens",
    "output_tokens",
)


def test_every_request_is_answered_once_while_picture_tiers_are_killed(system: System) -> None:
    chance, before = random.Random(SEED), used(system)
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
    try:
        for _ in range(KILLS):
            enough = len(answers) + ANSWERS_BETWEEN
            assert wait_until(lambda enough=enough: len(answers) >= enough, 90, 0.02), failures  # type: ignore[misc]
            time.sleep(chance.random() / 2)
            assert wait_until(lambda: kill_one(system, chance), 60, 0.1)
    finally:
        stop.set()
        for sender in senders:
            sender.join(120)
    assert not failures, (len(failures), failures[:3])
    assert {usage["completion_tokens"] for usage in answers} == {3}
    charged = used(system)
    assert charged[0] - before[0] == len(answers)
    assert charged[1] - before[1] == sum(usage["total_tokens"] for usage in answers)


def kill_one(system: System, chance: random.Random) -> bool:
    """SIGKILL a replica of a tier drawn by chance; False while it has none."""
    replicas = system.processes(f"ServeReplica:pixtral:{chance.choice(TIERS)}")
    with suppress(psutil.NoSuchProcess):
        if replicas:
            chance.choice(replicas).kill()
            return True
    return False


def used(system: System) -> tuple[int, int]:
    """Requests and tokens that the ledger has charged."""
    request = urllib.request.Request(
        f"{system.url}/v1/usage", headers={"Authorization": f"Bearer {KEY}"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        total = json.load(response)["total"]
    return total["requests"], sum(total[kind] for kind in KINDS)
