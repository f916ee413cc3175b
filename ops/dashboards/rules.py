"""dashboards/rules/*.yml, as Prometheus loads them."""

from __future__ import annotations

from typing import Any

import yaml

from ops.dashboards.alert import Alert
from ops.dashboards.alerts import alerts
from ops.dashboards.recording import recordings

HEADER = "# Generated: change ops/dashboards/ and run `python -m ops.dashboards`.\n"


def recording_file() -> str:
    rules = [{"record": rule.record, "expr": rule.expression} for rule in recordings()]
    return _written({"groups": [{"name": "pixtral-recording", "rules": rules}]})


def alerts_file(runbooks: str) -> str:
    """``runbooks``: what the links to runbooks begin with, for example an address."""
    rules = [_rule(alert, runbooks) for alert in alerts()]
    return _written({"groups": [{"name": "pixtral-alerts", "rules": rules}]})


def _rule(alert: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.wait,
        "labels": {"severity": alert.severity, "tier": alert.tier},
        "annotations": {
            "summary": alert.summary,
            "description": alert.description,
            "runbook_url": f"{runbooks}/{alert.name}.md",
        },
    }


def _written(document: dict[str, Any]) -> str:
    return HEADER + yaml.safe_dump(document, sort_keys=False, width=100, allow_unicode=True)
