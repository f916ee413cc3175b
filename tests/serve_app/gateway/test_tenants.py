"""Whose requests the engine is told they are."""

from __future__ import annotations

import time

import pytest

from serve_app.accounting.authenticator import FRESH_US
from tests.serve_app.gateway.conftest import Gateway


def tenant_of_next(gateway: Gateway):
    assert gateway.endpoint.chat(max_tokens=1).status_code == 200
    return gateway.tiers.requests[-1].tenant


def test_the_engine_hears_of_team_and_weight(gateway: Gateway) -> None:
    before = tenant_of_next(gateway)
    team = str(gateway.store.holds()[-1]["team_id"])
    assert (before.team, before.weight) == (team, 1)
    gateway.store.limit_team(weight=3)
    time.sleep(FRESH_US / 1e6)
    assert tenant_of_next(gateway).weight == 3
    assert gateway.tiers.requests[-1].priority == 0


@pytest.mark.parametrize(("mode", "shares"), [("team", False), ("off", False), ("shared", True)])
def test_teams_share_what_is_cached_only_if_told_to(serve, mode: str, shares: bool) -> None:
    gateway = serve(decoder={"prefix_cache": mode})
    tenant = tenant_of_next(gateway)
    assert tenant.cache_salt == ("" if shares else tenant.team)
