"""What a cluster would say of itself, as the workload's example: the planned output `platform`, and
for what the cloud decides at the apply the stand-ins that the example already has."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ops.problem import Problem


def described(plan: Mapping[str, Any], example: Mapping[str, Any]) -> dict[str, Any]:
    """The output `platform` of a cluster's plan (JSON).

    Raises:
        Problem: ``example`` has no stand-in for a value that is known only after the apply.
    """
    change = plan["output_changes"]["platform"]
    told: dict[str, Any] = _told(change["after"], change["after_unknown"], example, "platform")
    return told


def example_file(cluster: Path) -> Path:
    """Beside the workload that stands on ``cluster`` (a root)."""
    return cluster.parent / "workload" / "example.platform.json"


def as_text(platform: Mapping[str, Any]) -> str:
    return json.dumps(platform, indent=2) + "\n"


def _told(known: Any, later: Any, stand_in: Any, path: str) -> Any:
    if later is True:
        if stand_in is None:
            raise Problem(f"{path} is known after the apply only: give the example a stand-in")
        return stand_in
    if isinstance(known, Mapping) or isinstance(later, Mapping):
        known, later = known or {}, later or {}
        others = stand_in if isinstance(stand_in, Mapping) else {}
        return {
            key: _told(known.get(key), later.get(key), others.get(key), f"{path}.{key}")
            for key in (*known, *(each for each in later if each not in known))
        }
    return known
