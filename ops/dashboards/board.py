"""What a dashboard is, before it is Grafana's: sections of panels, each with its queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from grafana_foundation_sdk.models import units

SECONDS = units.Seconds
SHARE = units.PercentUnit
COUNT = units.Short
BYTES = units.BytesIEC
DOLLARS = units.Dollars
REQUESTS_PER_SECOND = units.RequestsPerSecond
TOKENS_PER_SECOND = "suffix: tokens/s"
PICTURES_PER_SECOND = "suffix: pictures/s"
PATCHES_PER_SECOND = "suffix: patches/s"
EVENTS_PER_SECOND = units.EventsPerSecond
BYTES_PER_SECOND = units.BytesPerSecondIEC
PERCENT = units.Percent


@dataclass(frozen=True, slots=True)
class Query:
    """``legend`` in Grafana's form, ``{{group}}``."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """``alerts`` are those whose runbooks it links; ``width`` in 24ths of the screen."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["graph", "number"] = "graph"
    alerts: tuple[str, ...] = ()
    stacked: bool = False
    width: int = 8


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the dashboard's top: the values of ``label`` of ``series``, several or all."""

    label: str
    series: str
    text: str


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    description: str
    variables: tuple[Variable, ...]
    sections: tuple[Section, ...]

    def panels(self) -> Iterator[Panel]:
        for section in self.sections:
            yield from section.panels


def number(
    title: str,
    description: str,
    unit: str,
    expression: str,
    *alerts: str,
) -> Panel:
    """One large number, a sixth of the screen."""
    return Panel(title, description, unit, (Query(expression, title),), "number", alerts, width=4)


def graph(
    title: str,
    description: str,
    unit: str,
    *queries: tuple[str, str],
    alerts: tuple[str, ...] = (),
    stacked: bool = False,
    width: int = 8,
) -> Panel:
    """Lines over time, ``queries`` as (expression, legend)."""
    asked = tuple(Query(expression, legend) for expression, legend in queries)
    return Panel(title, description, unit, asked, "graph", alerts, stacked, width)
