"""One request seen in every tier: one trace, one id in the logs, and all series from the start."""

from __future__ import annotations

import json
import secrets
import urllib.request
from functools import partial
from itertools import pairwise

import pytest

from serve_app import cluster, telemetry
from tests.cluster.collector import Collector
from tests.cluster.system import KEY, System, picture
from tests.waiting import wait_until

SPANS = {
    "request": "gateway",
    "hold": "gateway",
    "settle": "gateway",
    "preprocess": "preprocess",
    "vision": "vision",
    "queue": "decoder",
    "prefill": "decoder",
    "decode": "decoder",
}
SECRET = f"canary{secrets.token_hex(8)}"


def ask(system: System, traceparent: str | None = None) -> str:
    """A picture question; its request id."""
    content = [picture(64, 48), {"type": "text", "text": f"What is {SECRET}?"}]
    headers = {} if traceparent is None else {"traceparent": traceparent}
    with system.post(content, headers=headers, max_tokens=3) as response:
        response.read()
        return str(response.headers["x-request-id"])


@pytest.fixture(scope="module")
def request_id(system: System) -> str:
    return ask(system)


def test_one_trace_has_a_span_of_every_tier(request_id: str, collector: Collector) -> None:
    assert wait_until(lambda: len(collector.spans(request_id)) >= len(SPANS), 20, 0.2)
    spans = {span.name: span for span in collector.spans(request_id)}
    assert {name: span.tier for name, span in spans.items()} == SPANS
    root = spans.pop("request")
    assert root.parent_id == ""
    assert root.attributes["http.response.status_code"] == 200
    assert root.attributes["team"] == "default"
    for span in spans.values():
        assert (span.trace_id, span.parent_id) == (root.trace_id, root.span_id)
        assert span.started_ns <= span.ended_ns
    order = ["preprocess", "hold", "vision", "queue", "prefill", "decode", "settle"]
    # Clocks of different processes: to a hundredth of a second.
    starts = [spans[name].started_ns for name in order]
    assert all(later - earlier > -10_000_000 for earlier, later in pairwise(starts))
    assert starts[0] >= root.started_ns - 10_000_000
    assert spans["decode"].attributes["finish_reason"] == "length"


def test_traces_hold_neither_prompt_nor_key(request_id: str, collector: Collector) -> None:
    assert wait_until(lambda: bool(collector.spans(request_id)), 20, 0.2)
    assert collector.raw
    for word in (SECRET, KEY, "What is", "image_url", "base64"):
        assert word.encode() not in collector.raw


def test_a_clients_trace_is_gone_on_with_where_the_config_says_so(
    system: System, collector: Collector
) -> None:
    theirs, span = secrets.token_hex(16), secrets.token_hex(8)
    asked = ask(system, f"00-{theirs}-{span}-01")
    assert wait_until(lambda: len(collector.spans(asked)) >= len(SPANS), 20, 0.2)
    assert {s.trace_id for s in collector.spans(asked)} == {theirs}
    (root,) = [s for s in collector.spans(asked) if s.name == "request"]
    assert root.parent_id == span
    unwanted = ask(system, f"00-{secrets.token_hex(16)}-{span}-00")
    assert wait_until(lambda: bool(collector.spans(asked)), 5, 0.2)
    assert collector.spans(unwanted) == []


def test_the_same_id_is_in_the_log_of_every_tier(system: System, request_id: str) -> None:
    events = {
        "Gateway": "request settled",
        "Preprocess": "prepared",
        "Vision": "encoded",
        "DecoderGroup": "generated",
    }
    logs = cluster.session_folder(system.state) / "session_latest" / "logs" / "serve"

    def line_of(tier: str) -> str:
        """Of this request in the tier's files, as the Ray dashboard shows them."""
        lines = [
            line
            for file in logs.glob(f"replica_*{tier}*.log")
            for line in file.read_text().splitlines()
            if request_id in line and events[tier] in line
        ]
        return lines[0] if lines else ""

    def told(tier: str) -> bool:
        return bool(line_of(tier))

    for tier in events:
        assert wait_until(partial(told, tier), 10, 0.2), tier
        assert "team=default" in line_of(tier)
        assert f" {request_id} -- {events[tier]}" in line_of(tier)
    for file in logs.glob("*.log"):
        assert SECRET not in file.read_text()


def test_counters_are_shown_before_anything_is_counted(system: System) -> None:
    """An alert must tell never from not known."""
    quiet = (
        "generation_failures_total",
        "tier_retries_total",
        "audit_alarms_total",
        "unmetered_requests_total",
        "journal_lost_bytes_total",
        "ledger_commit_failures_total",
        "preprocess_refused_total",
    )

    def shown(name: str) -> bool:
        return bool(system.metrics(name))

    for name in quiet:
        assert wait_until(partial(shown, f"ray_pixtral_{name}"), 30, 0.5), name


def test_a_request_moves_every_tiers_series(system: System, request_id: str) -> None:
    moved = (
        "requests_total",
        "request_outcomes_total",
        "request_duration_seconds_count",
        "time_to_first_token_seconds_count",
        "time_per_output_token_seconds_count",
        "longest_token_gap_seconds_count",
        "preprocess_queue_seconds_count",
        "vision_queue_seconds_count",
        "decoder_tokens_total",
        "decoder_steps_total",
        "decoder_step_seconds_total",
        "decoder_step_sequences_total",
        "decoder_step_duration_seconds_count",
        "decoder_finished_choices_total",
        "decoder_queue_seconds_count",
        "decoder_prefill_seconds_count",
        "decoder_token_timeout_seconds",
        "ledger_commits_total",
        "ledger_written_jobs_total",
        "ledger_commit_seconds_count",
        "ledger_hold_seconds_count",
        "sweeps_total",
        "audited_holds_total",
        "last_sweep_timestamp_seconds",
        "build_info",
    )

    # Of a vision tier that sleeps again nothing is shown.
    ask(system)

    def moved_yet(name: str) -> bool:
        return sum(system.metrics(name)) > 0

    for name in moved:
        full = f"ray_pixtral_{name}"
        assert wait_until(partial(moved_yet, full), 30, 0.5), full


def test_the_ledgers_own_metrics_have_ages(system: System) -> None:
    with urllib.request.urlopen(f"{system.url}/metrics", timeout=10) as response:
        text = response.read().decode()
    for name in (telemetry.LEDGER_EXPIRED.name, telemetry.LEDGER_OLDEST_UNAUDITED.name):
        assert f"\n{name} " in text


def test_ready_names_nothing_when_all_is_well(system: System) -> None:
    with urllib.request.urlopen(f"{system.url}/readyz", timeout=10) as response:
        assert json.load(response) == {"ready": True, "reasons": []}
