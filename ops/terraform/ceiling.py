"""The most that an environment's nodes can cost, from its plan and the table of machines.

Only machines: disks, databases, traffic and load balancers come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ops.planning.machines import MACHINES

_HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Line:
    """One tier at its upper bound; ``usd_per_hour`` is of all its nodes, None where unknown."""

    tier: str
    machine: str
    nodes: int
    usd_per_hour: Decimal | None


@dataclass(frozen=True, slots=True)
class Ceiling:
    lines: tuple[Line, ...]

    @property
    def usd_per_hour(self) -> Decimal:
        """Of the tiers whose price is known."""
        return sum((line.usd_per_hour or Decimal() for line in self.lines), Decimal())

    @property
    def unpriced(self) -> tuple[str, ...]:
        """Machines in use whose price an operator has to give."""
        return tuple(sorted({line.machine for line in self.lines if line.usd_per_hour is None}))

    def as_text(self) -> str:
        hourly = self.usd_per_hour
        known = f"{hourly:,.2f} USD an hour, {hourly * _HOURS_A_MONTH:,.0f} a month at most"
        if not self.unpriced:
            return known
        nodes = ", ".join(
            f"{line.nodes} {line.machine}" for line in self.lines if line.usd_per_hour is None
        )
        return f"{known if hourly else 'no price is known'}, and your prices for {nodes}"


def ceiling(plan: Mapping[str, Any], prices: Mapping[str, Decimal] | None = None) -> Ceiling:
    """From the plan's output ``cost_inputs``; ``prices`` are USD an hour of a machine, before ours.

    Raises:
        KeyError: the plan has no such output.
    """
    inputs = plan["planned_values"]["outputs"]["cost_inputs"]["value"]
    lines = []
    for tier, each in sorted(inputs.items()):
        machine, nodes = each["machine_type"], int(each["max_nodes"])
        known = MACHINES.get(machine)
        price = (prices or {}).get(machine) or (known.usd_per_hour if known else None)
        if nodes:
            lines.append(Line(tier, machine, nodes, None if price is None else price * nodes))
    return Ceiling(tuple(lines))
