"""What an alert is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Alert:
    """Fires once ``expression`` has given anything for as long as ``wait``.

    Attributes:
        summary, description: may hold Prometheus's templates, ``{{ $labels.group }}``.
        reads: the parts of the expression that give a value at any time while the system runs; each
            occurs in it as written. The rest only compares them.
        severity: ``page`` wakes somebody up, ``ticket`` waits for the morning.
        wait: how long it must hold, as Prometheus writes it.
    """

    name: str
    severity: Literal["page", "ticket"]
    tier: Literal["gateway", "preprocess", "vision", "decoder", "accounting", "machine", "all"]
    summary: str
    description: str
    expression: str
    reads: tuple[str, ...]
    wait: str = "0m"


def beyond(value: str, comparison: str) -> tuple[str, tuple[str, ...]]:
    """The expression and ``reads`` of the plainest alert: one value, compared with a number."""
    return f"({value}) {comparison}", (value,)
