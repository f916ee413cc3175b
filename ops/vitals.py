"""How the running system does, asked of its own HTTP ports at the same time: quick, and no Ray.

Becoming a driver of Ray, to ask Serve itself, takes seconds; its dashboard tells the same at once.
The groups' own numbers come by the gateway, as Ray's metrics are up to ten seconds old; where the
key may not see them, the old ones must do. Metric names are spelled out, as importing
``serve_app/telemetry.py`` imports Ray; a test compares.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from ops.edge import Endpoints, Health, get_json, health
from serve_app.cluster import APPLICATION, ClusterStatus, TierStatus
from serve_app.config import Config

TIMEOUT_S = 5.0
# Between Ray's reports: what is scraped may be that old.
SCRAPE_AGE_S = 10
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_GROUP = "ray_pixtral_decoder_"
# Serve's own, by deployment.
IN_FLIGHT = "ray_serve_replica_processing_queries"
QUEUED = "ray_serve_deployment_queued_queries"
# What a group's report is read from: its field, and the metric after ``pixtral_decoder_``.
STATS = {
    "running": "running_sequences",
    "waiting": "waiting_sequences",
    "blocks_total": "kv_blocks",
    "blocks_free": "kv_blocks_free",
    "generated_tokens_total": "generated_tokens",
}
TOKEN_AGE = "token_age_seconds"
STEP_SECONDS = "step_seconds_total"
# A group's report, as a mapping; see ``serve_app/messages.py``.
Pulse = dict[str, Any]
# Name and labels -> value.
Samples = list[tuple[str, Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one tier."""

    in_flight: int = 0
    queued: int = 0


@dataclass(frozen=True, slots=True)
class Today:
    """Of all teams since midnight UTC, settled; ``net_usd`` is a decimal string."""

    requests: int
    tokens: int
    net_usd: str


@dataclass(frozen=True, slots=True)
class Vitals:
    """What was seen at ``at`` (seconds, monotonic).

    Attributes:
        cluster: None where Ray's dashboard does not answer.
        today: None where the key may not see it, or the ledger does not answer.
        generated: tokens that the groups generated since they started; ``step_s`` the seconds
            that their steps took.
    """

    at: float
    cluster: ClusterStatus | None
    health: Health
    load: Mapping[str, Load] = field(default_factory=dict)
    today: Today | None = None
    generated: float = 0.0
    step_s: float = 0.0

    def tokens_per_s(self, before: Vitals | None) -> float | None:
        """Generated since ``before``; without it, per second that the groups really computed, and
        None where they have generated nothing yet."""
        if before is not None and self.at > before.at and self.generated >= before.generated:
            return (self.generated - before.generated) / (self.at - before.at)
        return self.generated / self.step_s if self.generated and self.step_s else None


def look(config: Config, state: Path, key: str) -> Vitals:
    """Never raises; what does not answer within ``TIMEOUT_S`` is missing.

    Args:
        state: the folder with Ray's token.
        key: asked how the groups do and what today brought.
    """
    endpoints = Endpoints.of(config)
    with ThreadPoolExecutor(5) as pool:
        serve = pool.submit(_serve, endpoints, state)
        scrape = pool.submit(_scrape, endpoints.metrics)
        ready = pool.submit(health, endpoints, TIMEOUT_S)
        day = datetime.now(UTC).date().isoformat()
        today = pool.submit(brought, endpoints, key, day)
        groups = pool.submit(_groups, endpoints, key)
        serves, samples, (told, at) = serve.result(), scrape.result(), groups.result()
        pulses = _scraped(samples, serves) if told is None else told
        return Vitals(
            at=at,
            cluster=_cluster(serves, pulses),
            health=ready.result(),
            load=_load(samples),
            today=today.result(),
            generated=_sum(pulses, "generated_tokens_total"),
            step_s=_sum(pulses, STEP_SECONDS),
        )


def _groups(endpoints: Endpoints, key: str) -> tuple[list[Pulse] | None, float]:
    """What the groups say of themselves, None where nobody tells, and when it was so."""
    url = f"{endpoints.root}/admin/groups"
    status, body = get_json(url, TIMEOUT_S, key or None)
    at = time.monotonic()
    if status != 200 or not isinstance(body, dict) or "silent" not in body:
        return None, at
    told = [_endless(pulse) for pulse in sorted(body["data"], key=lambda each: each["group"])]
    return told + [{"error": "it gave no sign of life"}] * body["silent"], at


def _endless(pulse: Pulse) -> Pulse:
    """JSON knows no infinity: a group without a token has an age of null there."""
    age = pulse["token_age_s"]
    return {**pulse, "token_age_s": float("inf") if age is None else age}


def _serve(endpoints: Endpoints, state: Path) -> Any:
    try:
        token = (state / "ray-token").read_text().strip()
    except OSError:
        return None
    status, body = get_json(f"{endpoints.dashboard}/api/serve/applications/", TIMEOUT_S, token)
    return body if status == 200 else None


def brought(endpoints: Endpoints, key: str, day: str) -> Today | None:
    """What ``day`` (ISO, UTC) brought; None where the admin API does not tell."""
    url = f"{endpoints.root}/admin/usage?from={day}&to={day}&by=team"
    status, body = get_json(url, TIMEOUT_S, key or None)
    total = body.get("total") if status == 200 and isinstance(body, dict) else None
    if total is None:
        return None
    return Today(total["requests"], _tokens(total), total["net_usd"])


def _tokens(total: Mapping[str, Any]) -> int:
    return sum(
        count for name, count in total.items() if name.endswith("_tokens") and count is not None
    )


def _scrape(url: str) -> Samples:
    from prometheus_client.parser import text_string_to_metric_families

    try:
        with _DIRECT.open(url, timeout=TIMEOUT_S) as response:
            text = response.read().decode()
    except (OSError, HTTPException):
        return []
    # Most of what Ray exports is not ours; only what is looked at is parsed.
    wanted = (_GROUP, IN_FLIGHT, QUEUED)
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families("\n".join(lines) + "\n")
        for sample in family.samples
    ]


def _cluster(serve: Any, pulses: Iterable[Pulse]) -> ClusterStatus | None:
    if serve is None:
        return None
    application = serve.get("applications", {}).get(APPLICATION)
    if application is None:
        return ClusterStatus(True, "NOT_STARTED", "Ray runs, the application does not")
    tiers = tuple(
        TierStatus(name, tier["status"], len(tier["replicas"]), tier["message"])
        for name, tier in application["deployments"].items()
    )
    return ClusterStatus(True, application["status"], application["message"], tiers, tuple(pulses))


def _scraped(samples: Samples, serve: Any) -> list[Pulse]:
    """Each living group's numbers, in the shape of its report but ``late``, up to ``SCRAPE_AGE_S``;
    a dead one's stay for a while."""
    applications = {} if serve is None else serve.get("applications", {})
    tiers = applications.get(APPLICATION, {}).get("deployments", {})
    alive = {replica["replica_id"] for replica in tiers.get("DecoderGroup", {}).get("replicas", ())}
    by_group: dict[str, dict[str, float]] = {}
    for name, labels, value in samples:
        if name.startswith(_GROUP) and labels.get("group") in alive:
            by_group.setdefault(labels["group"], {})[name.removeprefix(_GROUP)] = value
    return [
        {
            "group": group,
            "late": True,
            "token_age_s": values.get(TOKEN_AGE, float("inf")),
            "stats": {
                **{key: int(values.get(metric, 0)) for key, metric in STATS.items()},
                STEP_SECONDS: values.get(STEP_SECONDS, 0.0),
            },
        }
        for group, values in sorted(by_group.items())
    ]


def _load(samples: Samples) -> dict[str, Load]:
    names = {labels["deployment"] for name, labels, _ in samples if name in (IN_FLIGHT, QUEUED)}

    def of(metric: str, tier: str) -> int:
        mine = (s[2] for s in samples if s[0] == metric and s[1]["deployment"] == tier)
        return int(sum(mine))

    return {tier: Load(of(IN_FLIGHT, tier), of(QUEUED, tier)) for tier in names}


def _sum(pulses: Iterable[Pulse], count: str) -> float:
    return sum(float(pulse["stats"][count]) for pulse in pulses if "stats" in pulse)
