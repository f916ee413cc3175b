"""What is committed in dashboards/, read as Grafana and Prometheus would, without the generator."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

DASHBOARDS = Path(__file__).parents[2] / "dashboards"
_NAME = re.compile(r"\b(?:ray_|pixtral_|model:)[\w:]+")
_LABELS = re.compile(r"\{[^}]*\}|\bby \([^)]*\)|\bon \([^)]*\)")


@dataclass(frozen=True)
class Expression:
    """``where`` names it to a person: file, then panel or rule."""

    where: str
    text: str

    def names(self) -> set[str]:
        """Every series that it reads."""
        return set(_NAME.findall(_LABELS.sub("", self.text)))


def boards() -> dict[str, dict[str, Any]]:
    return {
        file.stem: json.loads(file.read_text())
        for file in sorted((DASHBOARDS / "generated").glob("*.json"))
    }


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def panel_expressions() -> Iterator[Expression]:
    for uid, board in boards().items():
        for panel in panels(board):
            for target in panel["targets"]:
                yield Expression(f"{uid} / {panel['title']}", target["expr"])


def rules(name: str) -> list[dict[str, Any]]:
    document = yaml.safe_load((DASHBOARDS / "rules" / f"{name}.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def promtool() -> str:
    """The program, or a skip; in CI a missing one is a failure (tests/conftest.py)."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("needs package prometheus, which brings promtool: apt install prometheus")
    return found
