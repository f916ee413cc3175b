"""Every metric, its help text and its tags, once.

Replica metrics go through ``ray.serve.metrics``: one scrape of Ray's endpoint shows every node, as
``ray_pixtral_…`` with Serve's own deployment, replica and application labels added. What is in the
ledger is read from it at each scrape of the gateway's /metrics instead, the same from any replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ray.serve import metrics

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]


class LedgerMetric(NamedTuple):
    """Name, help and labels of what gateway/metrics_route.py shows. Months are UTC."""

    name: str
    text: str
    labels: tuple[str, ...]


_TEAM = ("organisation", "team")
LEDGER_TOKENS = LedgerMetric(
    "pixtral_ledger_tokens_total",
    "Tokens booked; payer is team, or waste for what nobody pays",
    (*_TEAM, "model", "kind", "payer"),
)
LEDGER_NANO_USD = LedgerMetric(
    "pixtral_ledger_nano_usd_total",
    "Nano-dollars booked at list price, before refunds",
    (*_TEAM, "model", "kind", "payer"),
)
LEDGER_REQUESTS = LedgerMetric(
    "pixtral_ledger_month_requests",
    "Requests of this month by outcome; running ones have none yet",
    (*_TEAM, "model", "outcome"),
)
LEDGER_POSTED = LedgerMetric(
    "pixtral_ledger_month_posted_nano_usd", "Spent this month, less refunds", _TEAM
)
LEDGER_HELD = LedgerMetric(
    "pixtral_ledger_month_held_nano_usd", "Reserved for requests that run", _TEAM
)
LEDGER_BUDGET = LedgerMetric(
    "pixtral_ledger_month_budget_nano_usd", "Budget of a month; absent without one", _TEAM
)
LEDGER_OPEN = LedgerMetric("pixtral_ledger_open_holds", "Requests that run", ())
LEDGER_UNAUDITED = LedgerMetric(
    "pixtral_ledger_unaudited_holds", "Ended, and not compared with the engine's journal yet", ()
)
LEDGER_ALERTS = LedgerMetric(
    "pixtral_ledger_alerts_given_up", "Budget alerts whose webhook never took them", ()
)


class PreprocessMetrics:
    """The preprocessing tier: requests, pictures and the time both take."""

    def __init__(self) -> None:
        self.pictures = _counter("pixtral_preprocess_pictures_total", "Pictures decoded")
        self.refused = _counter(
            "pixtral_preprocess_refused_total", "Requests refused as invalid while preparing"
        )
        self.seconds = _seconds(
            "pixtral_preprocess_duration_seconds", "Decoding, resizing and tokenising one request"
        )


class VisionMetrics:
    """The vision tier: pictures, patches and packed passes."""

    def __init__(self) -> None:
        self.pictures = _counter("pixtral_vision_pictures_total", "Pictures encoded")
        self.patches = _counter("pixtral_vision_patches_total", "Patches encoded")
        self.batch_pictures = metrics.Histogram(
            "pixtral_vision_batch_pictures",
            "Pictures in one packed forward pass",
            boundaries=[1, 2, 4, 8, 16, 32],
        )
        self.seconds = _seconds(
            "pixtral_vision_duration_seconds", "One packed forward pass of the encoder"
        )


class DecoderMetrics:
    """One decoder group, from its engine's own counters."""

    def __init__(self, group: str) -> None:
        tags = {"group": group}
        self.running = _gauge("pixtral_decoder_running_sequences", "In the batch", tags)
        self.waiting = _gauge("pixtral_decoder_waiting_sequences", "Waiting for KV room", tags)
        self.blocks_total = _gauge("pixtral_decoder_kv_blocks", "KV cache blocks", tags)
        self.blocks_free = _gauge("pixtral_decoder_kv_blocks_free", "Free KV cache blocks", tags)
        self.prompt_tokens = _gauge(
            "pixtral_decoder_prompt_tokens", "Prompt tokens computed since the group started", tags
        )
        self.generated_tokens = _gauge(
            "pixtral_decoder_generated_tokens", "Tokens generated since the group started", tags
        )
        self.steps = _gauge("pixtral_decoder_steps", "Forward steps since the group started", tags)


class GatewayMetrics:
    """What callers experience, one label set per model."""

    def __init__(self, model: str) -> None:
        tags = {"model": model}
        self.time_to_first_token = _seconds(
            "pixtral_time_to_first_token_seconds", "From accepted request to first token", tags
        )
        self.prompt_tokens = _counter(
            "pixtral_prompt_tokens_total", "Prompt tokens of answered requests", tags
        )
        self.completion_tokens = _counter(
            "pixtral_completion_tokens_total", "Tokens delivered to callers", tags
        )
        self.retries = _counter(
            "pixtral_tier_retries_total", "Requests sent again after a tier was lost", tags
        )
        self.failures = _counter(
            "pixtral_generation_failures_total", "Generations ended by our fault", tags
        )


def _counter(name: str, text: str, tags: dict[str, str] | None = None) -> Any:
    return _tagged(metrics.Counter(name, text, tag_keys=_keys(tags)), tags)


def _gauge(name: str, text: str, tags: dict[str, str] | None = None) -> Any:
    return _tagged(metrics.Gauge(name, text, tag_keys=_keys(tags)), tags)


def _seconds(name: str, text: str, tags: dict[str, str] | None = None) -> Any:
    histogram = metrics.Histogram(name, text, boundaries=_SECONDS, tag_keys=_keys(tags))
    return _tagged(histogram, tags)


def _keys(tags: dict[str, str] | None) -> Sequence[str]:
    return tuple(tags or ())


def _tagged(metric: Any, tags: dict[str, str] | None) -> Any:
    if tags:
        # Copied: Serve adds its own tags to the dict it is given.
        metric.set_default_tags(dict(tags))
    return metric
