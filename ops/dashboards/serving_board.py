"""What callers feel: requests, errors, waiting; and the promises made to them."""

from __future__ import annotations

from ops.dashboards import series
from ops.dashboards.board import (
    COUNT,
    EVENTS_PER_SECOND,
    REQUESTS_PER_SECOND,
    SECONDS,
    SHARE,
    TOKENS_PER_SECOND,
    Board,
    Panel,
    Section,
    Variable,
    graph,
    number,
)
from ops.dashboards.promql import quantile, share, total, where, zero
from ops.dashboards.recording import WINDOWS, faults_ratio, slow_ratio
from ops.dashboards.series import GATEWAY

_MODEL = {"model": "~$model"}
_REQUESTS = where(GATEWAY.requests, **_MODEL)
_CHAT = where(_REQUESTS, route="chat")
_FAULTS = where(_CHAT, status="~5..")


def serving_board() -> Board:
    return Board(
        "pixtral-serving",
        "Pixtral: serving",
        "What callers feel: how many ask, how soon and how fast answers come, what fails.",
        (Variable("model", GATEWAY.requests, "Model"),),
        (
            Section("Now", _now()),
            Section("What callers feel", (*_requests(), *_latencies())),
            Section("What was promised", _objectives()),
            Section("The tiers behind", _tiers()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    return (
        number(
            "Chat requests",
            "Chat requests answered per second, refusals too.",
            REQUESTS_PER_SECOND,
            total(_CHAT),
        ),
        number(
            "Our faults",
            "Share of chat requests that ended with a 5xx.",
            SHARE,
            share(total(_FAULTS), total(_CHAT)),
            "PixtralErrorRateHigh",
        ),
        number(
            "First token, p95",
            "Nineteen of twenty answers began sooner than this.",
            SECONDS,
            quantile(0.95, where(GATEWAY.time_to_first_token, **_MODEL), window="5m"),
            "PixtralTimeToFirstTokenHigh",
        ),
        number(
            "Tokens delivered",
            "Output tokens that reached callers, per second.",
            TOKENS_PER_SECOND,
            total(where(GATEWAY.completion_tokens, **_MODEL)),
        ),
        number(
            "In flight",
            "Chat requests accepted and not settled yet, of all models.",
            COUNT,
            f"max({series.LEDGER_OPEN})",
        ),
        number(
            "Groups with a fresh token",
            "Decoder groups whose last token is younger than their timeout: what /readyz counts.",
            COUNT,
            f"count({series.DECODER.token_age} <= {series.DECODER.token_timeout}) or vector(0)",
            "PixtralGroupNotReady",
            "PixtralNoGroup",
        ),
    )


def _requests() -> tuple[Panel, ...]:
    refused = where(_CHAT, code="!ok")
    outcomes = where(GATEWAY.outcomes, **_MODEL)
    return (
        graph(
            "Requests by status",
            "All routes. 4xx is the caller's, 5xx is ours.",
            REQUESTS_PER_SECOND,
            (total(_REQUESTS, "status"), "{{status}}"),
            stacked=True,
        ),
        graph(
            "Chat requests refused, by reason",
            "The error code in the answer: overloaded says that no tier took it, insufficient_quota"
            " a spent budget.",
            REQUESTS_PER_SECOND,
            (zero(total(refused, "code")), "{{code}}"),
            alerts=("PixtralErrorRateHigh",),
            stacked=True,
        ),
        graph(
            "How accepted requests ended",
            "Failed are ours; a disconnected caller pays for what was computed until then.",
            REQUESTS_PER_SECOND,
            (total(outcomes, "outcome"), "{{outcome}}"),
            stacked=True,
        ),
    )


def _latencies() -> tuple[Panel, ...]:
    return (
        _quantiles(
            "Time to first token",
            "From the accepted request to its first token: preprocessing, vision, waiting for room"
            " and the prefill.",
            GATEWAY.time_to_first_token,
            "PixtralTimeToFirstTokenHigh",
        ),
        _quantiles(
            "Time per output token",
            "Mean time between two tokens of an answer, after its first.",
            GATEWAY.token_seconds,
        ),
        _quantiles("Whole request", "To the last byte of the answer.", GATEWAY.duration),
        _quantiles(
            "Longest silence",
            "Between two deliveries of tokens within one answer.",
            GATEWAY.longest_gap,
        ),
        graph(
            "Tokens",
            "Prompt tokens of answered requests and output tokens delivered.",
            TOKENS_PER_SECOND,
            (total(where(GATEWAY.prompt_tokens, **_MODEL)), "prompt"),
            (total(where(GATEWAY.completion_tokens, **_MODEL)), "output"),
        ),
        graph(
            "Work lost",
            "Generations ended by our fault, and requests sent to a tier again.",
            EVENTS_PER_SECOND,
            (total(where(GATEWAY.failures, **_MODEL)), "ended by our fault"),
            (total(where(GATEWAY.retries, **_MODEL)), "sent again"),
            alerts=("PixtralGenerationFailures", "PixtralTierRetries"),
        ),
    )


def _quantiles(title: str, description: str, name: str, *alerts: str) -> Panel:
    observed = where(name, **_MODEL)
    return graph(
        title,
        description,
        SECONDS,
        *((quantile(of, observed, window="5m"), f"p{of * 100:g}") for of in (0.5, 0.95, 0.99)),
        alerts=alerts,
    )


def _objectives() -> tuple[Panel, ...]:
    return (
        graph(
            "Requests that ended by our fault",
            "Share of chat requests with a 5xx over several windows; the alert compares two.",
            SHARE,
            *(
                (where(faults_ratio(window), **_MODEL), f"{{{{model}}}} {window}")
                for window in WINDOWS
            ),
            alerts=("PixtralErrorRateHigh",),
            width=12,
        ),
        graph(
            "Answers that began late",
            "Share of answers whose first token took longer than promised, over several windows.",
            SHARE,
            *(
                (where(slow_ratio(window), **_MODEL), f"{{{{model}}}} {window}")
                for window in WINDOWS
            ),
            alerts=("PixtralTimeToFirstTokenHigh",),
            width=12,
        ),
    )


def _tiers() -> tuple[Panel, ...]:
    return (
        graph(
            "Healthy replicas",
            "By Serve's health checks.",
            COUNT,
            (f"sum by (deployment) ({series.SERVE_HEALTHY})", "{{deployment}}"),
            alerts=("PixtralGatewayDown", "PixtralTierBelowTarget"),
        ),
        graph(
            "Waiting for a replica",
            "Requests that Serve holds back because no replica of the tier takes more.",
            COUNT,
            (f"sum by (deployment) ({series.SERVE_QUEUED})", "{{deployment}}"),
            alerts=("PixtralQueueGrowing",),
        ),
        graph(
            "Errors between tiers",
            "Calls from tier to tier that raised, refusals of bad pictures too.",
            EVENTS_PER_SECOND,
            (zero(total(series.SERVE_ERRORS, "deployment")), "{{deployment}}"),
            alerts=("PixtralTierRetries",),
        ),
    )
