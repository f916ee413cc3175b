"""What there is, what is wanted and how full it is: tiers and machines."""

from __future__ import annotations

from ops.dashboards import series
from ops.dashboards.board import (
    BYTES,
    BYTES_PER_SECOND,
    COUNT,
    PERCENT,
    SHARE,
    Board,
    Panel,
    Section,
    graph,
    number,
)
from ops.dashboards.series import DECODER

_NODE = "{{ip}}"


def capacity_board() -> Board:
    return Board(
        "pixtral-capacity",
        "Pixtral: capacity",
        "What there is, what the autoscaler wants, and how full it is.",
        (),
        (
            Section("Now", _now()),
            Section("Tiers", _tiers()),
            Section("Machines", _machines()),
            Section("GPUs", _gpus()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    lacking = (
        f"clamp_min(sum({series.SERVE_TARGET}) - (sum({series.SERVE_HEALTHY}) or vector(0)), 0)"
    )
    return (
        number("Machines", "Nodes that Ray counts as alive.", COUNT, f"sum({series.NODES})"),
        number(
            "Decoder groups",
            "Each fills its own GPUs.",
            COUNT,
            f"count({DECODER.blocks_total}) or vector(0)",
            "PixtralNoGroup",
        ),
        number(
            "Replicas lacking",
            "Wanted by the autoscaler and not healthy, over all tiers.",
            COUNT,
            lacking,
            "PixtralTierBelowTarget",
        ),
        number(
            "Batch in use",
            "Share of all the sequences that may run at once.",
            SHARE,
            f"sum({DECODER.running}) / sum({DECODER.batch_limit})",
        ),
        number(
            "Waiting room in use",
            "Share of all the requests that may wait; once full, Serve holds back the rest.",
            SHARE,
            f"sum({DECODER.waiting}) / sum({DECODER.waiting_limit})",
            "PixtralQueueGrowing",
        ),
        number(
            "KV cache in use",
            "Share of all blocks of all groups.",
            SHARE,
            f"1 - sum({DECODER.blocks_free}) / sum({DECODER.blocks_total})",
            "PixtralKvCacheFull",
        ),
    )


def _tiers() -> tuple[Panel, ...]:
    tier = "{{deployment}}"
    return (
        graph(
            "Wanted and healthy replicas",
            "Target of the autoscaler, and what passes its health checks.",
            COUNT,
            (f"max by (deployment) ({series.SERVE_TARGET})", f"{tier} wanted"),
            (f"sum by (deployment) ({series.SERVE_HEALTHY})", f"{tier} healthy"),
            alerts=("PixtralTierBelowTarget",),
        ),
        graph(
            "Requests in work",
            "In the replicas of each tier.",
            COUNT,
            (f"sum by (deployment) ({series.SERVE_ONGOING})", tier),
            stacked=True,
        ),
        graph(
            "Utilisation",
            "Of a tier's replicas, by Serve's reckoning.",
            PERCENT,
            (f"avg by (deployment) ({series.SERVE_UTILISATION})", tier),
        ),
        graph(
            "Waiting for a replica",
            "Held back by Serve.",
            COUNT,
            (f"sum by (deployment) ({series.SERVE_QUEUED})", tier),
            alerts=("PixtralQueueGrowing",),
            width=12,
        ),
        graph(
            "Replicas started in half an hour",
            "More than the tier ever wants at once: they die or are killed.",
            COUNT,
            (f"sum by (deployment) (delta({series.SERVE_STARTS}[30m]))", tier),
            alerts=("PixtralReplicaRestarting",),
            width=12,
        ),
    )


def _machines() -> tuple[Panel, ...]:
    used = f"sum by (ip) ({series.NODE_MEMORY_USED}) / sum by (ip) ({series.NODE_MEMORY})"
    store = f"sum by (NodeAddress) ({series.STORE_USED})"
    room = f"{store} + sum by (NodeAddress) ({series.STORE_FREE})"
    return (
        graph(
            "Processors",
            "In use, of each machine.",
            PERCENT,
            (f"avg by (ip) ({series.NODE_CPU})", _NODE),
        ),
        graph("Memory", "In use, of each machine.", SHARE, (used, _NODE)),
        graph(
            "Object store",
            "In use, of each machine.",
            SHARE,
            (f"{store} / ({room})", "{{NodeAddress}}"),
            alerts=("PixtralObjectStoreFilling",),
        ),
        graph(
            "Free disk",
            "Journals, spilled objects and weights lie there.",
            BYTES,
            (f"min by (ip) ({series.NODE_DISK_FREE})", _NODE),
            width=12,
        ),
        graph(
            "Network",
            "Received and sent.",
            BYTES_PER_SECOND,
            (f"sum by (ip) ({series.NODE_NETWORK_IN})", f"{_NODE} received"),
            (f"sum by (ip) ({series.NODE_NETWORK_OUT})", f"{_NODE} sent"),
            width=12,
        ),
    )


def _gpus() -> tuple[Panel, ...]:
    used, free = series.GPU_MEMORY_USED, series.GPU_MEMORY_FREE
    gpu = "{{ip}} GPU {{GpuIndex}}"
    return (
        graph(
            "GPUs in work",
            "Utilisation of each, as Ray sees it.",
            PERCENT,
            (f"avg by (ip, GpuIndex) ({series.GPU_UTILISATION})", gpu),
            width=12,
        ),
        graph(
            "GPU memory in use",
            "Share of each.",
            SHARE,
            (
                f"sum by (ip, GpuIndex) ({used})"
                f" / (sum by (ip, GpuIndex) ({used}) + sum by (ip, GpuIndex) ({free}))",
                gpu,
            ),
            alerts=("PixtralGpuMemoryFull",),
            width=12,
        ),
    )
