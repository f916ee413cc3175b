"""A running Prometheus, asked what a viewer's Grafana would ask."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.dashboards.shipped import Expression

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# What Grafana puts in place of its variables, with everything chosen and a minute of data.
_VARIABLES = {"$__rate_interval": "1m", "$__range": "10m"}
_CHOICES = ("model", "group", "organisation", "team")


@dataclass(frozen=True)
class Prometheus:
    url: str

    def values(self, expression: str) -> list[float]:
        """Of every series that it gives now.

        Raises:
            AssertionError: Prometheus does not understand it.
        """
        asked = urllib.parse.urlencode({"query": filled_in(expression)}).encode()
        try:
            with _DIRECT.open(f"{self.url}/api/v1/query", asked, timeout=30) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        assert answer["status"] == "success", answer
        return [float(series["value"][1]) for series in answer["data"]["result"]]

    def get(self, path: str) -> dict[str, Any]:
        with _DIRECT.open(f"{self.url}/api/v1/{path}", timeout=30) as response:
            data: dict[str, Any] = json.load(response)["data"]
        return data

    def post(self, path: str) -> int:
        """The status of an empty POST."""
        try:
            with _DIRECT.open(f"{self.url}/{path}", b"", timeout=30) as response:
                return int(response.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    def unanswered(self, expressions: Iterable[Expression]) -> tuple[Expression, ...]:
        """Those that give no finite value now."""
        return tuple(
            asked for asked in expressions if not any(map(math.isfinite, self.values(asked.text)))
        )

    def unknown(self, expressions: Iterable[Expression]) -> set[str]:
        """Series that they read and that never were, where ``or vector(0)`` would answer."""
        names: set[str] = set().union(*(asked.names() for asked in expressions))
        return {name for name in names if not self.values(f"count_over_time({name}[1h])")}


def filled_in(expression: str) -> str:
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    for choice in _CHOICES:
        expression = expression.replace(f"${choice}", ".*")
    assert "$" not in expression, expression
    return expression
