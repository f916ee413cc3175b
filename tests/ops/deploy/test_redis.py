"""The head knows whom to trust when Redis shows its certificate."""

from __future__ import annotations

import pytest

from ops.deploy import layout
from tests.ops.deploy.looking import of_kind, pods
from tests.ops.deploy.platforms import platforms, rendered

PROFILE = "pixtral-large-bf16-4xa100"
CLOUDS = [name for name in platforms() if name != "neutral"]


def _environment(spec: dict[str, list[dict[str, list[dict[str, str]]]]]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in spec["containers"][0]["env"]}


@pytest.mark.parametrize("platform", CLOUDS)
def test_the_authority_is_named_and_there(platform: str):
    manifests = rendered(PROFILE, platform)
    specs = pods(manifests)
    file = _environment(specs["headgroup"])["RAY_REDIS_CA_CERT"]
    own = platforms()[platform].redis.ca
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(manifests, "ConfigMap")}

    assert (own is None) == (file == layout.SYSTEM_AUTHORITIES)
    assert (own is None) == (layout.REDIS_AUTHORITY not in maps)
    if own is not None:
        (mount,) = (
            each
            for each in specs["headgroup"]["containers"][0]["volumeMounts"]
            if file.startswith(f"{each['mountPath']}/") and each["name"] == "redis-authority"
        )
        assert maps[layout.REDIS_AUTHORITY][file.removeprefix(f"{mount['mountPath']}/")] == own
    for tier, spec in specs.items():
        if tier != "headgroup":
            assert "RAY_REDIS_CA_CERT" not in _environment(spec)


def test_without_tls_there_is_nobody_to_trust():
    assert "RAY_REDIS_CA_CERT" not in _environment(pods(rendered("local", "neutral"))["headgroup"])
