"""The figures as a picture: tokens/s beside transformers', and shares of the machine's limits.

Plain SVG: it needs nothing to draw and shows wherever Markdown does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 760, 18, 8, 210, 110
_TOP, _TITLE = 34, 30
_OURS, _THEIRS, _LIMIT = "#2f6f9f", "#b9b9b9", "#c0392b"


@dataclass(frozen=True, slots=True)
class Bar:
    """``label`` names the row; only a group's first bar carries one."""

    label: str
    value: float
    colour: str
    told: str


def svg(report: Mapping[str, Any]) -> str:
    """A plot of what ``--json`` wrote; of the scenarios that it holds."""
    rows = {row["scenario"]: row for row in report["scenarios"]}
    speeds = _speeds(rows)
    shares = _shares(rows)
    parts: list[str] = []
    y = _TOP
    if speeds:
        most = max(bar.value for bar in speeds)
        y = _chart(parts, y, "tokens/s: engine (blue), transformers (grey)", speeds, most)
    if shares:
        y = _chart(parts, y, "share of what the machine can do (red: goal)", shares, 1.0)
        goals = [(row, _goal_of(rows, row)) for row in _LIMITED if row in rows]
        _goal_marks(parts, y, [goal for _, goal in goals if goal is not None])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}"'
        f' viewBox="0 0 {_WIDTH} {y}" font-family="sans-serif" font-size="12">'
        f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
        f'<text x="8" y="18" fill="#555">{escape(str(report["machine"]))};'
        f" {escape(str(report['at']))}</text>"
    )
    return head + "".join(parts) + "</svg>\n"


# Scenario → its figure, and the goal that it is held against.
_LIMITED = {
    "alone": ("weights read, of the best matrix-vector", "alone: matrix-vector bandwidth"),
    "first token": ("of the product rate, attention counted", "first token: product rate"),
}
_PAIRS = {
    "alone": ("tokens/s", "tokens/s, transformers"),
    "eight": ("tokens/s", "tokens/s, static batch"),
    "sixteen pictures": ("tokens/s", "tokens/s, static batch"),
    "prompt lookup": ("tokens/s, with lookup", "tokens/s, plain"),
}


def _speeds(rows: Mapping[str, Any]) -> list[Bar]:
    bars = []
    for scenario, names in _PAIRS.items():
        if scenario not in rows:
            continue
        figures = rows[scenario]["figures"]
        for name, colour in zip(names, (_OURS, _THEIRS), strict=True):
            best = figures[name]["best"]
            label = scenario if colour == _OURS else ""
            plain = "plain, ours" if scenario == "prompt lookup" and not label else ""
            bars.append(Bar(label or plain, best, colour, f"{best:.1f}"))
    return bars


def _shares(rows: Mapping[str, Any]) -> list[Bar]:
    return [
        Bar(label, each["value"], _OURS, f"{each['value']:.0%}")
        for scenario, (goal, label) in _LIMITED.items()
        for each in rows.get(scenario, {"goals": []})["goals"]
        if each["what"] == goal
    ]


def _goal_of(rows: Mapping[str, Any], scenario: str) -> float | None:
    for each in rows[scenario]["goals"]:
        if each["what"] == _LIMITED[scenario][0]:
            return float(each["goal"].split()[1])
    return None


def _chart(parts: list[str], y: int, title: str, bars: Sequence[Bar], most: float) -> int:
    """Draw bars below each other from ``y`` on; returns where the next chart may begin."""
    parts.append(f'<text x="8" y="{y + 14}" font-weight="bold">{escape(title)}</text>')
    y += _TITLE
    for bar in bars:
        width = max(1.0, _span(bar.value, most))
        middle = y + _BAR - 5
        parts.append(
            f'<text x="{_LEFT - 8}" y="{middle}" text-anchor="end">{escape(bar.label)}</text>'
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{bar.colour}"/>'
            f'<text x="{_LEFT + width + 6:.1f}" y="{middle}">{escape(bar.told)}</text>'
        )
        y += _BAR + _GAP
    return y + _GAP


def _goal_marks(parts: list[str], end: int, goals: Sequence[float]) -> None:
    """A red line on each of the bars of the chart that ended at ``end``."""
    y = end - _GAP - len(goals) * (_BAR + _GAP)
    for goal in goals:
        x = _LEFT + _span(goal, 1.0)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 3}" y2="{y + _BAR + 3}"'
            f' stroke="{_LIMIT}" stroke-width="2"/>'
        )
        y += _BAR + _GAP


def _span(value: float, most: float) -> float:
    return min(value / most, 1.1) * (_WIDTH - _LEFT - _RIGHT)
