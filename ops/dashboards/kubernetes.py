"""Dashboards and rules as a cluster with kube-prometheus-stack takes them.

Grafana's sidecar loads every ConfigMap that carries its label; Prometheus' operator every
PrometheusRule that its ``ruleSelector`` matches: the chart's own wants the label ``release``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

NAMESPACE = "monitoring"
SIDECAR_LABEL = {"grafana_dashboard": "1"}
FOLDER_ANNOTATION = {"grafana_folder": "Pixtral"}
LABELS = {
    "app.kubernetes.io/part-of": "pixtral",
    "app.kubernetes.io/managed-by": "pixtral-dashboards",
}


def manifests(
    files: Mapping[Path, str], namespace: str = NAMESPACE, labels: Mapping[str, str] | None = None
) -> list[Manifest]:
    """``files``: what lies in dashboards/, by path within it; ``labels``: for the rules' selector.

    The rules come first: the panels read what they record.
    """
    rules = [path for path in files if path.parent.name == "rules"]
    boards = [path for path in files if path.parent.name == "generated"]
    return [
        *(_rule(path, files[path], namespace, labels or {}) for path in rules),
        *(_board(path, files[path], namespace) for path in boards),
    ]


def _rule(path: Path, text: str, namespace: str, labels: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": f"pixtral-{path.stem}",
            "namespace": namespace,
            "labels": LABELS | dict(labels),
        },
        "spec": yaml.safe_load(text),
    }


def _board(path: Path, text: str, namespace: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"pixtral-dashboard-{path.stem}",
            "namespace": namespace,
            "labels": LABELS | SIDECAR_LABEL,
            "annotations": dict(FOLDER_ANNOTATION),
        },
        "data": {path.name: text},
    }


def parsed_labels(given: Iterable[str]) -> dict[str, str]:
    """Of ``key=value``.

    Raises:
        ValueError: one is not of that form.
    """
    labels = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise ValueError(f"{text!r} is not KEY=VALUE")
        labels[key] = value
    return labels
