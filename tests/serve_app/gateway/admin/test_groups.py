from math import inf

from serve_app.messages import Pulse
from shards.stats import EngineStats

STATS = EngineStats(
    running=2,
    waiting=1,
    blocks_total=128,
    blocks_free=96,
    prompt_tokens_total=500,
    cached_tokens_total=96,
    generated_tokens_total=70,
    unmetered_tokens_total=3,
    steps_total=40,
    last_token_at=1000.0,
    step_seconds_total=1.25,
    drafted_tokens_total=24,
    accepted_tokens_total=20,
    put_back_total=1,
    recomputed_tokens_total=16,
)


async def test_each_group_tells_its_engine_and_its_processes(portal):
    portal.pulses = [Pulse("a", 0.5, 30.0, STATS, (17, 18))]
    assert await portal.got("/admin/groups") == {
        "data": [
            {
                "group": "a",
                "token_age_s": 0.5,
                "token_timeout_s": 30.0,
                "rank_pids": [17, 18],
                "stats": {
                    "running": 2,
                    "waiting": 1,
                    "blocks_total": 128,
                    "blocks_free": 96,
                    "prompt_tokens_total": 500,
                    "cached_tokens_total": 96,
                    "generated_tokens_total": 70,
                    "drafted_tokens_total": 24,
                    "accepted_tokens_total": 20,
                    "put_back_total": 1,
                    "recomputed_tokens_total": 16,
                    "steps_total": 40,
                    "step_seconds_total": 1.25,
                },
            }
        ],
        "silent": 0,
    }


async def test_a_group_without_a_token_and_one_without_an_answer(portal):
    """JSON has no infinity."""
    portal.pulses = [Pulse("a", inf, 30.0, STATS, ()), None]
    told = await portal.got("/admin/groups")
    assert told["data"][0]["token_age_s"] is None
    assert told["silent"] == 1


async def test_no_group(portal):
    assert await portal.got("/admin/groups") == {"data": [], "silent": 0}
