"""The decoder groups: the batch, its steps, the KV cache."""

from __future__ import annotations

from ops.dashboards import series
from ops.dashboards.board import (
    BYTES,
    COUNT,
    EVENTS_PER_SECOND,
    PERCENT,
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
from ops.dashboards.promql import quantile, share, total, where
from ops.dashboards.series import DECODER

_GROUP = {"group": "~$group"}


def engine_board() -> Board:
    return Board(
        "pixtral-engine",
        "Pixtral: engine and KV cache",
        "What the decoder groups do, step by step, and what room they have.",
        (Variable("group", DECODER.blocks_total, "Group"),),
        (
            Section("Now", _now()),
            Section("Batch and steps", _steps()),
            Section("KV cache and waiting", _room()),
            Section("GPUs", _gpus()),
        ),
    )


def _of(name: str, **labels: str) -> str:
    return where(name, **_GROUP, **labels)


def _by_group(name: str) -> str:
    return f"max by (group) ({_of(name)})"


_USED = f"1 - sum({_of(DECODER.blocks_free)}) / sum({_of(DECODER.blocks_total)})"


def _now() -> tuple[Panel, ...]:
    return (
        number(
            "Generated",
            "Tokens generated per second for callers, delivered or not.",
            TOKENS_PER_SECOND,
            total(_of(DECODER.tokens, kind="generated")),
        ),
        number(
            "Prefilled",
            "Prompt tokens computed per second.",
            TOKENS_PER_SECOND,
            total(_of(DECODER.tokens, kind="prompt")),
        ),
        number("Running", "Sequences in the batch.", COUNT, f"sum({_of(DECODER.running)})"),
        number(
            "Waiting",
            "Sequences that wait for room in the KV cache or the batch.",
            COUNT,
            f"sum({_of(DECODER.waiting)})",
            "PixtralQueueGrowing",
        ),
        number("KV cache", "Share of its blocks in use.", SHARE, _USED, "PixtralKvCacheFull"),
        number(
            "Oldest last token",
            "Age of the last token, of the group that is worst off.",
            SECONDS,
            f"max({_of(DECODER.token_age)})",
            "PixtralGroupNotReady",
        ),
    )


def _steps() -> tuple[Panel, ...]:
    steps = total(_of(DECODER.step_count), "group")
    return (
        graph(
            "Tokens by kind",
            "Cached prompt tokens were found, not computed. Unmetered are the tokens that an idle "
            "group generates to prove that it lives.",
            TOKENS_PER_SECOND,
            (total(_of(DECODER.tokens), "group, kind"), "{{group}} {{kind}}"),
        ),
        graph("Steps", "Forward steps per second.", EVENTS_PER_SECOND, (steps, "{{group}}")),
        graph(
            "Mean batch",
            "Sequences in a step, on average: what makes a step worth its weights.",
            COUNT,
            (share(total(_of(DECODER.step_sequences), "group"), steps), "{{group}}"),
        ),
        graph(
            "Step duration",
            "One forward step; steps with a prefill chunk take longer.",
            SECONDS,
            *_quantiles(DECODER.step_duration),
        ),
        graph(
            "Busy",
            "Share of the time that is spent in steps.",
            SHARE,
            (total(_of(DECODER.step_seconds), "group"), "{{group}}"),
        ),
        graph(
            "Drafts",
            "Tokens guessed ahead (decoder.max_drafts): each accepted one saves a step, refused "
            "ones cost rows of it.",
            TOKENS_PER_SECOND,
            (total(_of(DECODER.drafts), "verdict"), "{{verdict}}"),
            stacked=True,
        ),
        graph(
            "How choices ended",
            "In the engine: by a stop, by length, or aborted because nobody waited any more.",
            EVENTS_PER_SECOND,
            (total(_of(DECODER.finished), "reason"), "{{reason}}"),
            stacked=True,
        ),
    )


def _room() -> tuple[Panel, ...]:
    free, blocks = _by_group(DECODER.blocks_free), _by_group(DECODER.blocks_total)
    return (
        graph(
            "KV cache in use",
            "Share of the blocks; full and with sequences waiting, admission stops.",
            SHARE,
            (f"1 - {free} / {blocks}", "{{group}}"),
            alerts=("PixtralKvCacheFull",),
        ),
        graph(
            "Running and waiting",
            "Against the most that may run and may wait.",
            COUNT,
            (_by_group(DECODER.running), "{{group}} running"),
            (_by_group(DECODER.batch_limit), "{{group}} may run"),
            (_by_group(DECODER.waiting), "{{group}} waiting"),
            (_by_group(DECODER.waiting_limit), "{{group}} may wait"),
            alerts=("PixtralQueueGrowing",),
        ),
        graph(
            "Age of the last token",
            "Above its timeout a group is not ready.",
            SECONDS,
            (_by_group(DECODER.token_age), "{{group}}"),
            (_by_group(DECODER.token_timeout), "{{group}} timeout"),
            alerts=("PixtralGroupNotReady", "PixtralNoGroup"),
        ),
        graph(
            "Wait in the engine",
            "From arrival to the first step.",
            SECONDS,
            *_quantiles(DECODER.queue_seconds),
            alerts=("PixtralQueueGrowing",),
            width=12,
        ),
        graph(
            "Prefill",
            "From the first step to the first token.",
            SECONDS,
            *_quantiles(DECODER.prefill_seconds),
            width=12,
        ),
        graph(
            "Put back",
            "Choices that gave their KV blocks to others and began again later: often, and the "
            "cache is too small for the batch.",
            EVENTS_PER_SECOND,
            (total(_of(DECODER.put_back), "group"), "{{group}}"),
            width=12,
        ),
        graph(
            "Computed again",
            "Tokens of choices that were put back, as far as the prefix cache had lost them.",
            TOKENS_PER_SECOND,
            (total(_of(DECODER.recomputed), "group"), "{{group}}"),
            width=12,
        ),
    )


def _gpus() -> tuple[Panel, ...]:
    gpu = "ip, GpuIndex"
    return (
        graph(
            "GPU utilisation",
            "Share of the time in which a kernel ran, as Ray sees it.",
            PERCENT,
            (f"avg by ({gpu}) ({series.GPU_UTILISATION})", "{{ip}} GPU {{GpuIndex}}"),
            width=12,
        ),
        graph(
            "GPU memory",
            "Most of it is taken at the start: weights and KV cache.",
            BYTES,
            (f"sum by ({gpu}) ({series.GPU_MEMORY_USED}) * 1048576", "{{ip}} GPU {{GpuIndex}}"),
            alerts=("PixtralGpuMemoryFull",),
            width=12,
        ),
    )


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    observed = _of(name)
    return tuple(
        (quantile(of, observed, window="5m"), f"p{of * 100:g}") for of in (0.5, 0.95, 0.99)
    )
