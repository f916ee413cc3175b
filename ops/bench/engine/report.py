"""What a scenario found: figures, and the goals they are held against; as JSON and as a table."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ops.bench.engine.limits import Limits
from ops.bench.engine.run import Spread


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure and its bound."""

    what: str
    value: float
    bound: float
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario.

    Attributes:
        figures: what was measured, by name with its unit; the best and the median where it was
            measured several times.
        goals: ratios within this run.
        notes: what a reader must know of how it was measured.
    """

    scenario: str
    what: str
    figures: Mapping[str, float | Spread]
    goals: tuple[Goal, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Of one run of the command."""

    limits: Limits
    threads: int
    rows: tuple[Row, ...] = ()
    machine: str = field(default_factory=lambda: machine_name())
    at: str = field(default_factory=lambda: datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"))

    def with_row(self, row: Row) -> Report:
        return replace(self, rows=(*self.rows, row))

    def as_json(self) -> str:
        return json.dumps(self.as_dict(), indent=2) + "\n"

    def as_dict(self) -> dict[str, Any]:
        limits = self.limits
        return {
            "at": self.at,
            "machine": self.machine,
            "threads": self.threads,
            "limits": {
                "summed_bytes_per_s": limits.summed,
                "matvec_bytes_per_s": dict(limits.matvecs),
                "gemm_flops_per_s": limits.gemm,
                "gemm_flops_per_s_by_shape": dict(limits.shapes),
                "failed": limits.failed,
            },
            "scenarios": [_row_dict(row) for row in self.rows],
        }

    def as_markdown(self) -> str:
        limits = self.limits
        lines = [
            f"{self.machine}; {self.threads} threads; {self.at}.",
            "",
            "| limit of the machine | |",
            "|---|---|",
            f"| a sum over 1 GiB | {limits.summed / 1e9:.1f} GB/s |",
        ]
        for name, rate in limits.matvecs.items():
            lines.append(f"| one row by a matrix: {name} | {rate / 1e9:.1f} GB/s |")
        lines.append(f"| products of the picture prompt | {limits.gemm / 1e9:.1f} GFLOP/s |")
        lines += ["", "| scenario | | measured | goal | |", "|---|---|---|---|---|"]
        for row in self.rows:
            for goal in row.goals:
                met = "met" if goal.met else "**missed**"
                lines.append(
                    f"| {row.scenario} | {goal.what} | {number(goal.value)} | {goal} | {met} |"
                )
        lines += ["", "| scenario | figure | best | median |", "|---|---|---|---|"]
        for row in self.rows:
            for name, value in row.figures.items():
                best, median = (
                    (number(value.best), number(value.median))
                    if isinstance(value, Spread)
                    else (number(value), "")
                )
                lines.append(f"| {row.scenario} | {name} | {best} | {median} |")
        lines += [""]
        for row in self.rows:
            lines.append(f"- **{row.scenario}**: {row.what}" + "".join(f" {n}" for n in row.notes))
        if limits.failed:
            lines.append(f"- Products could not be compiled: {limits.failed}.")
        return "\n".join(lines) + "\n"


def read_report(file: Path) -> Mapping[str, Any]:
    """What ``--json`` wrote."""
    report: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def machine_name() -> str:
    """Processor, cores and what computes on them."""
    cores = len(_affinity())
    return (
        f"{_processor()}, {cores} cores, {torch.backends.cpu.get_cpu_capability()}, Python"
        f" {platform.python_version()}, torch {torch.__version__}"
    )


def number(value: float) -> str:
    """Three digits, whatever its size."""
    if math.isnan(value):
        return "n/a"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _row_dict(row: Row) -> dict[str, Any]:
    return {
        "scenario": row.scenario,
        "what": row.what,
        "figures": {
            name: {"best": value.best, "median": value.median}
            if isinstance(value, Spread)
            else value
            for name, value in row.figures.items()
        },
        "goals": [
            {"what": goal.what, "value": goal.value, "goal": str(goal), "met": goal.met}
            for goal in row.goals
        ],
        "notes": list(row.notes),
    }


def _affinity() -> Sequence[int]:
    import psutil

    return psutil.Process().cpu_affinity() or []


def _processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
