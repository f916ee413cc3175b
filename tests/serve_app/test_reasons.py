"""Reasons that a newcomer understands, and that tell a stranger nothing of the machine."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from serve_app.reasons import GROUP_LOST, NO_GROUP, group_reasons, plain, tier_reasons


def pulse(age_s):
    return SimpleNamespace(group="g1", token_age_s=age_s, token_timeout_s=30.0)


def test_groups():
    assert group_reasons([pulse(2.0)]) == []
    assert group_reasons([]) == [NO_GROUP]
    assert group_reasons([pulse(2.0), RuntimeError("at 10.0.0.7")]) == [GROUP_LOST]
    [late] = group_reasons([pulse(45.4)])
    assert "g1 has generated no token for 45 s; 30 s is the most" in late


@pytest.mark.parametrize(
    ("answers", "may_sleep", "well"),
    [
        ([None], False, True),
        ([None, RuntimeError()], False, True),
        ([RuntimeError()], False, False),
        ([RuntimeError()], True, False),
        ([], False, False),
        ([], True, True),
    ],
)
def test_other_tiers(answers, may_sleep, well):
    reasons = tier_reasons("vision", answers, may_sleep=may_sleep)
    assert reasons == ([] if well else ["the vision tier does not answer; Serve is starting it"])


FAILED = """The deployment failed to start 3 times in a row. This may be due to a problem with its
constructor or initial health check failing. Error:
ray::ServeReplica:pixtral:Vision.initialize_and_get_metadata() (pid=1, ip=127.0.0.1)
  File "/app/serve_app/vision.py", line 40, in __init__
    raise ConfigError("…")
serve_app.config.ConfigError: vision.device: cuda, but PyTorch sees no GPU on this machine
"""


def test_a_failed_constructor_is_told_by_its_own_words():
    said = "vision.device: cuda, but PyTorch sees no GPU on this machine"
    assert plain(FAILED) == said
    assert plain(FAILED + "\nNot all replicas are up.") == said


def test_what_is_plain_stays():
    assert plain("") == ""
    assert plain("waiting for 1 CPU") == "waiting for 1 CPU"
    assert plain("waiting\nfor a node") == "waiting"
