"""Alerts on what callers feel and on the tiers behind it."""

from __future__ import annotations

from collections.abc import Callable

from ops.dashboards import series
from ops.dashboards.alert import Alert, beyond
from ops.dashboards.objectives import Objectives
from ops.dashboards.promql import grown, where
from ops.dashboards.recording import faults_ratio, slow_ratio
from ops.dashboards.series import DECODER, GATEWAY

# (short window, long window, how many times faster than allowed the 30 days' errors are spent):
# 2 % of them in an hour, 5 % in six hours.
_BURNS = (("5m", "1h", 14.4), ("30m", "6h", 6.0))
# Fewer requests in an hour than this say nothing about a ratio.
_ENOUGH = "model:pixtral_requests:increase1h"
_GROUP_AGE = f"max by (group) ({DECODER.token_age})"
_GROUP_TIMEOUT = f"max by (group) ({DECODER.token_timeout})"
_WAITING = f"max by (group) ({DECODER.waiting})"
_WAITING_LIMIT = f"max by (group) ({DECODER.waiting_limit})"
# In the groups, and before them where they have no place left. Serve's own gauge comes and goes.
DECODER_QUEUE = (
    f"sum({DECODER.waiting})"
    f" + (sum({where(series.SERVE_QUEUED, deployment='DecoderGroup')}) or vector(0))"
)
_FREE = f"max by (group) ({DECODER.blocks_free})"
_BLOCKS = f"max by (group) ({DECODER.blocks_total})"


def serving_alerts(objectives: Objectives) -> tuple[Alert, ...]:
    return (
        _burning(
            "PixtralErrorRateHigh",
            "Too many chat requests to {{ $labels.model }} end by our fault",
            f"{objectives.availability:.1%} of chat requests should end without a 5xx; at this"
            " rate the errors of 30 days are spent in two to five days.",
            faults_ratio,
            1 - objectives.availability,
        ),
        _burning(
            "PixtralTimeToFirstTokenHigh",
            "Answers of {{ $labels.model }} begin late",
            f"{objectives.first_token_share:.0%} of answers should begin within"
            f" {objectives.first_token_s:g} s; at this rate the lateness of 30 days is spent in"
            " two to five days.",
            slow_ratio,
            1 - objectives.first_token_share,
        ),
        *_tiers(),
        *_decoder(),
        *_machines(),
    )


def _tiers() -> tuple[Alert, ...]:
    healthy = f"sum by (deployment) ({series.SERVE_HEALTHY})"
    target = f"max by (deployment) ({series.SERVE_TARGET})"
    gateways = f"sum({where(series.SERVE_HEALTHY, deployment='Gateway')}) or vector(0)"
    # One series for each replica that ever was; all of them stay while their node lives.
    starts = f"sum by (deployment) ({series.SERVE_STARTS})"
    earlier = f"sum by (deployment) ({series.SERVE_STARTS} offset 30m) or {starts} * 0"
    most = f"max by (deployment) (max_over_time({series.SERVE_TARGET}[30m]))"
    failures, retries = grown(GATEWAY.failures, "10m", "model"), grown(GATEWAY.retries, "15m")
    return (
        Alert(
            "PixtralGatewayDown",
            "page",
            "gateway",
            "No gateway is healthy: nobody is served",
            "Serve knows no healthy replica of the gateway, or Ray's metrics are not scraped.",
            *beyond(gateways, "< 1"),
            wait="1m",
        ),
        Alert(
            "PixtralTierBelowTarget",
            "ticket",
            "all",
            "{{ $labels.deployment }} lacks {{ $value }} replicas",
            "Fewer healthy replicas than the autoscaler wants, for ten minutes. On a GPU tier this"
            " usually means that no machine is to be had.",
            f"({target}) - ({healthy} or {target} * 0) > 0",
            (target, healthy),
            wait="10m",
        ),
        Alert(
            "PixtralReplicaRestarting",
            "ticket",
            "all",
            "{{ $labels.deployment }} starts replicas again and again",
            "In half an hour it started {{ $value }} replicas more than were ever wanted at once.",
            f"({starts}) - ({earlier}) - ({most}) > 2",
            (starts, earlier, most),
        ),
        Alert(
            "PixtralGenerationFailures",
            "ticket",
            "gateway",
            "Generations of {{ $labels.model }} ended by our fault",
            "{{ $value | humanize }} answers in ten minutes ended with an error of ours. Callers"
            " paid for nothing of them.",
            *beyond(failures, "> 0"),
        ),
        Alert(
            "PixtralTierRetries",
            "ticket",
            "gateway",
            "Tiers are lost while they work",
            "{{ $value | humanize }} requests in a quarter of an hour had to be sent to a tier"
            " again. Callers saw a pause.",
            *beyond(retries, "> 3"),
        ),
    )


def _decoder() -> tuple[Alert, ...]:
    groups = f"count({DECODER.token_age}) or vector(0)"
    queue, room = f"avg_over_time(({DECODER_QUEUE})[5m:15s])", f"sum({DECODER.waiting_limit})"
    wanted = f"sum({where(series.SERVE_TARGET, deployment='DecoderGroup')})"
    return (
        Alert(
            "PixtralGroupNotReady",
            "page",
            "decoder",
            "Group {{ $labels.group }} generates no tokens",
            "Its last token is {{ $value | humanizeDuration }} old; even an idle group generates"
            " one now and then.",
            f"({_GROUP_AGE}) > ({_GROUP_TIMEOUT})",
            (_GROUP_AGE, _GROUP_TIMEOUT),
            wait="30s",
        ),
        Alert(
            "PixtralNoGroup",
            "page",
            "decoder",
            "There is no decoder group: nothing can be answered",
            "No group reports, and the autoscaler does not want it so.",
            f"(({groups}) < 1) unless on () (({wanted}) == 0)",
            (groups, wanted),
            wait="2m",
        ),
        Alert(
            "PixtralQueueGrowing",
            "ticket",
            "decoder",
            "Requests queue before the decoder",
            "On average of five minutes as many waited as {{ $value | humanizePercentage }} of what"
            " the groups' waiting rooms hold, counting those that Serve holds back because the"
            " rooms are full.",
            f"{queue} / {room} > 0.5",
            (queue, room),
            wait="1m",
        ),
        Alert(
            "PixtralKvCacheFull",
            "ticket",
            "decoder",
            "The KV cache of group {{ $labels.group }} is full",
            "{{ $value | humanizePercentage }} of its blocks are free while requests wait for"
            " room.",
            f"(({_FREE}) / ({_BLOCKS}) < 0.05) and ({_WAITING} > 0)",
            (_FREE, _BLOCKS, _WAITING),
            wait="5m",
        ),
        Alert(
            "PixtralUnmeteredTokens",
            "ticket",
            "accounting",
            "An engine works for requests that nobody holds money for",
            "{{ $value | humanize }} requests in a quarter of an hour were computed with no hold"
            " in the ledger.",
            *beyond(grown(series.ACCOUNTS.strangers, "15m"), "> 0"),
        ),
    )


def _machines() -> tuple[Alert, ...]:
    store = f"sum by (NodeAddress) ({series.STORE_USED})"
    room = (
        f"sum by (NodeAddress) ({series.STORE_USED}) + sum by (NodeAddress) ({series.STORE_FREE})"
    )
    used = f"sum by (ip, GpuIndex) ({series.GPU_MEMORY_USED})"
    free = f"sum by (ip, GpuIndex) ({series.GPU_MEMORY_FREE})"
    return (
        Alert(
            "PixtralObjectStoreFilling",
            "ticket",
            "machine",
            "The object store of {{ $labels.NodeAddress }} is filling",
            "{{ $value | humanizePercentage }} is used. Pictures and features pass through it and"
            " should leave it: full, it spills to disk.",
            f"({store}) / ({room}) > 0.8",
            (store, room),
            wait="5m",
        ),
        Alert(
            "PixtralGpuMemoryFull",
            "ticket",
            "machine",
            "GPU {{ $labels.GpuIndex }} of {{ $labels.ip }} has no memory left",
            "{{ $value | humanizePercentage }} is used: the next large prompt may end its group."
            " Most of it is KV cache, taken at the start; decoder.kv_cache_bytes says how much.",
            f"({used}) / (({used}) + ({free})) > 0.98",
            (used, free),
            wait="10m",
        ),
    )


def _burning(
    name: str, summary: str, description: str, ratio: Callable[[str], str], allowed: float
) -> Alert:
    burns = " or ".join(
        f"({ratio(short)} > {allowed * times:.4g} and {ratio(long)} > {allowed * times:.4g})"
        for short, long, times in _BURNS
    )
    windows = [window for short, long, _ in _BURNS for window in (short, long)]
    return Alert(
        name,
        "page",
        "gateway",
        summary,
        description,
        f"({burns}) and ({_ENOUGH} > 20)",
        (*(ratio(window) for window in windows), _ENOUGH),
        wait="1m",
    )
