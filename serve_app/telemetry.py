"""Every metric, its help text and its tags, once.

Replica metrics go through ``ray.serve.metrics``: one scrape of Ray's endpoint shows every node, as
``ray_pixtral_…`` with Serve's own deployment, replica and application labels added. What is in the
ledger is read from it at each scrape of the gateway's /metrics instead, the same from any replica.

Counters and levels begin at 0 (instruments.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serve_app.instruments import counter, gauge, histogram, level

_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]
_LONG_SECONDS = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0]
_TOKEN_SECONDS = [0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5]

FETCH_OUTCOMES = (
    *("fetched", "blocked", "unreachable", "untrusted", "timeout", "status", "redirect"),
    *("broken", "encoded", "too_large", "busy", "refused", "cancelled"),
)


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
LEDGER_ALERTS_DUE = LedgerMetric(
    "pixtral_ledger_alerts_due", "Budget alerts not delivered yet, and not given up", ()
)
LEDGER_EXPIRED = LedgerMetric(
    "pixtral_ledger_expired_holds", "Held for a gateway that is gone, and not ended yet", ()
)
LEDGER_OLDEST_OPEN = LedgerMetric(
    "pixtral_ledger_oldest_open_hold_seconds", "Age of the oldest request that runs; 0 for none", ()
)
LEDGER_OLDEST_UNAUDITED = LedgerMetric(
    "pixtral_ledger_oldest_unaudited_hold_seconds",
    "Since the longest unaudited request has ended; 0 for none",
    (),
)


class PreprocessMetrics:
    """The preprocessing tier: requests, pictures and the time both take."""

    def __init__(self) -> None:
        self.pictures = counter("pixtral_preprocess_pictures_total", "Pictures decoded")
        self.known_pictures = counter(
            "pixtral_preprocess_known_pictures_total",
            "Pictures that were not decoded again: their patches were kept",
        )
        self.cached_bytes = level("pixtral_preprocess_cached_bytes", "Of patches that are kept")
        self.refused = counter(
            "pixtral_preprocess_refused_total", "Requests refused as invalid while preparing"
        )
        self.seconds = histogram(
            "pixtral_preprocess_duration_seconds",
            "Decoding, resizing and tokenising one request",
            _SECONDS,
        )
        self.waiting = level(
            "pixtral_preprocess_waiting_requests", "With no thread to tokenise them yet"
        )
        self.queue_seconds = histogram(
            "pixtral_preprocess_queue_seconds", "Wait of one request for a thread", _SECONDS
        )


class FetchMetrics:
    """Pictures that came as addresses, in the preprocessing tier."""

    def __init__(self) -> None:
        self.fetches = counter(
            "pixtral_picture_fetches_total",
            "Addresses of pictures, by what came of them; blocked are those that led to addresses "
            "which are never connected to",
            None,
            {"outcome": FETCH_OUTCOMES},
        )
        self.bytes = counter("pixtral_picture_fetched_bytes_total", "Of fetched pictures")
        self.seconds = histogram(
            "pixtral_picture_fetch_seconds", "One picture, redirects and waits included", _SECONDS
        )
        self.fetching = level("pixtral_picture_fetching_requests", "Whose pictures are on the way")
        self.held_bytes = level(
            "pixtral_picture_held_bytes", "Of fetched pictures that wait or are decoded"
        )


class WorkerMetrics:
    """The processes of one preprocessing replica that decode pictures."""

    def __init__(self) -> None:
        self.seconds = histogram(
            "pixtral_picture_decode_seconds", "Decoding, resizing and cutting one picture", _SECONDS
        )
        self.waiting = level("pixtral_picture_waiting_files", "Waiting for a worker")
        self.queue_seconds = histogram(
            "pixtral_picture_queue_seconds", "Wait of one file for a worker", _SECONDS
        )
        self.ended = counter(
            "pixtral_picture_workers_ended_total",
            "Worker processes replaced: too much time or memory, no processor, died, recycled",
            None,
            {"reason": ("time", "starved", "memory", "died", "recycled")},
        )


class VisionMetrics:
    """The vision tier: pictures, patches and packed passes."""

    def __init__(self) -> None:
        self.pictures = counter("pixtral_vision_pictures_total", "Pictures encoded")
        self.known_pictures = counter(
            "pixtral_vision_known_pictures_total",
            "Pictures that were not encoded again: their features were kept or on their way",
        )
        self.cached_bytes = level("pixtral_vision_cached_bytes", "Of features that are kept")
        self.patches = counter("pixtral_vision_patches_total", "Patches encoded")
        self.batch_pictures = histogram(
            "pixtral_vision_batch_pictures",
            "Pictures in one packed forward pass",
            [1, 2, 4, 8, 16, 32],
        )
        self.seconds = histogram(
            "pixtral_vision_duration_seconds", "One packed forward pass of the encoder", _SECONDS
        )
        self.waiting = level("pixtral_vision_waiting_pictures", "Waiting for a pass")
        self.waiting_patches = level(
            "pixtral_vision_waiting_patches", "Patches of the pictures that wait for a pass"
        )
        self.queue_seconds = histogram(
            "pixtral_vision_queue_seconds", "Wait of a pass's oldest picture", _SECONDS
        )


class DecoderMetrics:
    """One decoder group, from its engine's own counters.

    The gauges of tokens and steps begin at 0 with each group; rates are of the counters.
    """

    def __init__(self, group: str) -> None:
        tags = {"group": group}
        self.running = gauge("pixtral_decoder_running_sequences", "In the batch", tags)
        self.waiting = level("pixtral_decoder_waiting_sequences", "Waiting for KV room", tags)
        self.blocks_total = gauge("pixtral_decoder_kv_blocks", "KV cache blocks", tags)
        self.blocks_free = gauge("pixtral_decoder_kv_blocks_free", "Free KV cache blocks", tags)
        self.prompt_tokens = gauge(
            "pixtral_decoder_prompt_tokens", "Prompt tokens computed since the group started", tags
        )
        self.generated_tokens = gauge(
            "pixtral_decoder_generated_tokens", "Tokens generated since the group started", tags
        )
        self.steps = gauge("pixtral_decoder_steps", "Forward steps since the group started", tags)
        self.tokens = counter(
            "pixtral_decoder_tokens_total",
            "Computed: prompt, generated, or unmetered (signs of life that nobody pays for). Found "
            "in the prefix cache: cached",
            tags,
            {"kind": ("prompt", "cached", "generated", "unmetered")},
        )
        self.drafts = counter(
            "pixtral_decoder_draft_tokens_total",
            "Guessed ahead and computed, by whether the guess brought a token of the answer",
            tags,
            {"verdict": ("accepted", "refused")},
        )
        self.kept_pictures = counter(
            "pixtral_decoder_kept_pictures_total",
            "Pictures whose features the group had kept, so that the vision tier was not asked",
            tags,
        )
        self.put_back = counter(
            "pixtral_decoder_put_back_choices_total",
            "Choices that gave their KV blocks to others and began again later",
            tags,
        )
        self.recomputed = counter(
            "pixtral_decoder_recomputed_tokens_total",
            "Computed again because a choice was put back",
            tags,
        )
        self.step_count = counter("pixtral_decoder_steps_total", "Forward steps", tags)
        self.step_seconds = counter(
            "pixtral_decoder_step_seconds_total", "Spent in forward steps", tags
        )
        self.step_sequences = counter(
            "pixtral_decoder_step_sequences_total",
            "Sequences computed, summed over steps: by steps, the mean batch",
            tags,
        )
        self.step_duration = histogram(
            "pixtral_decoder_step_duration_seconds",
            "One forward step, or the mean of those that were reported together",
            _SECONDS,
            tags,
        )
        self.finished = counter(
            "pixtral_decoder_finished_choices_total",
            "Choices that ended in the engine, by reason",
            tags,
            {"reason": ("stop", "length", "abort")},
        )
        self.queue_seconds = histogram(
            "pixtral_decoder_queue_seconds",
            "From arrival at the engine to the first step",
            _SECONDS,
            tags,
        )
        self.prefill_seconds = histogram(
            "pixtral_decoder_prefill_seconds",
            "From the first step to the first token",
            _SECONDS,
            tags,
        )
        self.token_age = gauge(
            "pixtral_decoder_token_age_seconds", "Since the engine last drew a token", tags
        )
        self.token_timeout = gauge(
            "pixtral_decoder_token_timeout_seconds", "At which age a group is not ready", tags
        )
        self.batch_limit = gauge(
            "pixtral_decoder_batch_limit_sequences", "Most that run at once", tags
        )
        self.waiting_limit = gauge(
            "pixtral_decoder_waiting_limit_requests",
            "Most that wait in it; Serve keeps back more",
            tags,
        )


class GatewayMetrics:
    """What callers experience, one label set per model.

    ``faults`` are (status, code) of every refusal that a request can meet; their series begin at 0.
    """

    def __init__(self, model: str, faults: Iterable[tuple[str, str]] = ()) -> None:
        tags = {"model": model}
        self.time_to_first_token = histogram(
            "pixtral_time_to_first_token_seconds",
            "From accepted request to first token",
            _SECONDS,
            tags,
        )
        self.prompt_tokens = counter(
            "pixtral_prompt_tokens_total", "Prompt tokens of answered requests", tags
        )
        self.completion_tokens = counter(
            "pixtral_completion_tokens_total", "Tokens delivered to callers", tags
        )
        self.retries = counter(
            "pixtral_tier_retries_total", "Requests sent again after a tier was lost", tags
        )
        self.failures = counter(
            "pixtral_generation_failures_total", "Generations ended by our fault", tags
        )
        self.requests = counter(
            "pixtral_requests_total",
            "HTTP requests answered, by kind of route, status and error code (ok without one)",
            tags,
            {"route": (), "status": (), "code": ()},
        )
        for status, code in (("200", "ok"), *faults):
            self.requests.begin(route="chat", status=status, code=code)
        self.outcomes = counter(
            "pixtral_request_outcomes_total",
            "Chat requests that were held for, by how they ended",
            tags,
            {"outcome": ("completed", "disconnected", "failed", "refused", "unsettled")},
        )
        self.duration = histogram(
            "pixtral_request_duration_seconds",
            "Of a chat request, to the last byte",
            _LONG_SECONDS,
            tags,
        )
        self.token_seconds = histogram(
            "pixtral_time_per_output_token_seconds",
            "Mean time between two tokens of an answer, after its first",
            _TOKEN_SECONDS,
            tags,
        )
        self.longest_gap = histogram(
            "pixtral_longest_token_gap_seconds",
            "Longest silence between two deliveries of tokens in an answer",
            _SECONDS,
            tags,
        )


class AccountsMetrics:
    """A gateway's own dealings with the ledger. What is in the ledger is a ``LedgerMetric``."""

    def __init__(self) -> None:
        self.commit_seconds = histogram(
            "pixtral_ledger_commit_seconds", "One transaction of holds and settlements", _SECONDS
        )
        self.commits = counter("pixtral_ledger_commits_total", "Such transactions")
        self.commit_failures = counter(
            "pixtral_ledger_commit_failures_total", "Those that the database did not take"
        )
        self.written = counter(
            "pixtral_ledger_written_jobs_total", "Holds, settlements and renewals written"
        )
        self.waiting_holds = level(
            "pixtral_ledger_waiting_holds", "Requests that wait for their hold to be written"
        )
        self.hold_seconds = histogram(
            "pixtral_ledger_hold_seconds", "Wait of one request for its hold", _SECONDS
        )
        self.sweeps = counter("pixtral_sweeps_total", "Rounds of the sweeper")
        self.swept_at = level(
            "pixtral_last_sweep_timestamp_seconds", "Unix time of this gateway's last round"
        )
        self.audited = counter("pixtral_audited_holds_total", "Compared with the engine's count")
        self.alarms = counter(
            "pixtral_audit_alarms_total", "Of these, where ledger and engine disagree"
        )
        self.unproven = counter(
            "pixtral_audit_unproven_total", "Of these, charged with no count that ever came"
        )
        self.recovered = counter(
            "pixtral_recovered_holds_total", "Ended for gateways that had died"
        )
        self.sweep_failures = counter(
            "pixtral_sweep_failures_total", "Holds that the sweeper could not handle"
        )
        self.strangers = counter(
            "pixtral_unmetered_requests_total", "Computed by an engine with nothing held for them"
        )
        self.journal_lost = counter(
            "pixtral_journal_lost_bytes_total", "Of the engines' journals, damaged or gone"
        )


class BuildMetrics:
    """What runs, in the labels of one series; alive as long as this is."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """``labels``: version, model, device, dtype, tensor_parallel, simulated, database."""
        self.info = gauge("pixtral_build_info", "What runs, in the labels; always 1", labels)
        self.info.set(1)
