"""`pixtral status`: what runs, how healthy it is, and where to find it.

Reads the cluster's report and the gateway's readiness; judges nothing by itself.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

from ops.edge import Endpoints, Health
from ops.state import Running
from serve_app.cluster import ClusterStatus


@dataclass(frozen=True, slots=True)
class Overview:
    running: Running
    cluster: ClusterStatus
    health: Health

    @property
    def ready(self) -> bool:
        return self.cluster.running and self.health.ready

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``; numbers that JSON does not know (infinity) become null."""
        config = self.running.config
        values: dict[str, Any] = _plain(
            {
                "ready": self.ready,
                "reasons": self.health.reasons,
                "model": config.model.name,
                "untrained": config.model.untrained,
                "started_at": self.running.started_at,
                "base_url": Endpoints.of(config).base_url,
                "dashboard": Endpoints.of(config).dashboard,
                "metrics": Endpoints.of(config).metrics,
                "application": self.cluster.application,
                "message": self.cluster.message,
                "tiers": [asdict(tier) for tier in self.cluster.tiers],
                "groups": self.cluster.pulses,
            }
        )
        return values

    def as_text(self) -> str:
        config, endpoints = self.running.config, Endpoints.of(self.running.config)
        up_for = _duration(time.time() - self.running.started_at)
        verdict = "ready" if self.ready else f"NOT ready: {'; '.join(self._reasons())}"
        untrained = ", untrained: its answers are noise" if config.model.untrained else ""
        lines = [
            f"{config.model.name} ({config.model.path}{untrained})",
            f"started {up_for} ago, {verdict}",
            "",
            f"  {'tier':<16}{'status':<12}replicas",
        ]
        for tier in self.cluster.tiers:
            lines.append(f"  {tier.name:<16}{tier.status.lower():<12}{tier.replicas}")
            if tier.message:
                lines.append(f"    {tier.message}")
        lines += ["", *map(_group_line, self.cluster.pulses)] if self.cluster.pulses else []
        lines += [
            "",
            f"  API            {endpoints.base_url}",
            f"  metrics        {endpoints.metrics}",
            f"  Ray dashboard  {endpoints.dashboard}",
        ]
        return "\n".join(lines)

    def _reasons(self) -> tuple[str, ...]:
        return self.health.reasons or (self.cluster.message or self.cluster.application,)


def _group_line(pulse: dict[str, Any]) -> str:
    if "error" in pulse:
        return f"  a decoder group does not answer: {pulse['error']}"
    stats, age = pulse["stats"], pulse["token_age_s"]
    last = f"last token {age:.1f} s ago" if math.isfinite(age) else "no token yet"
    return (
        f"  group {pulse['group']}: {stats['running']} running, {stats['waiting']} waiting,"
        f" {stats['blocks_free']} of {stats['blocks_total']} KV blocks free, {last}"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
