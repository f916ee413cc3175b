"""A client that leaves frees what its request held, by the engine's own counters."""

import http.client
import json

from tests.e2e.system import System
from tests.waiting import wait_until

MAX_TOKENS = 20_000  # minutes of work if nobody stopped it


def hang_up_after_first_tokens(system: System) -> None:
    body = {
        "model": system.model,
        "messages": [{"role": "user", "content": "Tell me everything."}],
        "max_tokens": MAX_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    connection = http.client.HTTPConnection(system.root.removeprefix("http://"), timeout=60)
    connection.request(
        "POST",
        "/v1/chat/completions",
        json.dumps(body),
        {"Authorization": f"Bearer {system.key}", "Content-Type": "application/json"},
    )
    response = connection.getresponse()
    assert response.status == 200
    seen = 0
    while seen < 5:
        seen += response.readline().startswith(b"data: ")
    held = system.group()
    assert held["running"] == 1
    assert held["blocks_free"] < held["blocks_total"]
    response.close()
    connection.close()


def test_a_hang_up_frees_every_block_and_ends_the_work(system):
    before = system.group()
    assert (before["running"], before["blocks_free"]) == (0, before["blocks_total"])

    hang_up_after_first_tokens(system)

    def is_idle() -> bool:
        now = system.group()
        return (now["running"], now["waiting"]) == (0, 0)

    assert wait_until(is_idle, timeout_s=15)
    after = system.group()
    assert after["blocks_free"] == after["blocks_total"]
    generated = after["generated_tokens_total"] - before["generated_tokens_total"]
    assert 0 < generated < MAX_TOKENS
