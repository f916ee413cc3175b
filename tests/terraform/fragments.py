"""Smallest plans for the policies: one resource, one output, one reference."""

from __future__ import annotations

from typing import Any

from ops.terraform import policy


def change(kind: str, values: dict[str, Any], *, sensitive: Any = None, name: str = "this") -> Any:
    """One resource as `terraform show -json` tells of it."""
    return {
        "address": f"module.cluster.{kind}.{name}",
        "module_address": "module.cluster",
        "mode": "managed",
        "type": kind,
        "name": name,
        "change": {
            "actions": ["create"],
            "after": values,
            "after_unknown": {},
            "after_sensitive": sensitive,
        },
    }


def plan(*changes: Any, outputs: Any = None, references: Any = None) -> dict[str, Any]:
    """``references``: user block -> the block it names."""
    configured = [
        {"address": user, "expressions": {"id": {"references": [f"{used}.id", used]}}}
        for user, used in (references or {}).items()
    ]
    module = {"module": {"resources": configured}}
    return {
        "resource_changes": list(changes),
        "output_changes": outputs or {},
        "configuration": {"root_module": {"module_calls": {"cluster": module}}},
    }


def rules(*changes: Any, **more: Any) -> set[str]:
    return {each.rule for each in policy.violations(plan(*changes, **more))}
