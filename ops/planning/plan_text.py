"""A plan as a person reads it, and as a script does."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ops.admin.text import count, dollars, table
from ops.memory import size
from ops.planning.plan import Plan
from serve_app.accounting.money import usd_per_million

HOURS_A_MONTH = 730
_NOT_IN_IT = "disks, network, database, Redis, load balancer and taxes are not in it"


def as_dict(plan: Plan) -> dict[str, Any]:
    """For ``--json``: dollars are decimal strings, what is not known is null."""
    fit, bound, economics = plan.fit, plan.bound, plan.economics
    return {
        "cloud": plan.cloud,
        "model": plan.config.model.name,
        "tiers": [
            {
                "tier": pool.tier,
                "machine": pool.machine.name,
                "replicas_per_node": pool.per_node,
                "min_nodes": pool.least,
                "max_nodes": pool.most,
            }
            for pool in plan.pools
        ],
        "groups": {"min": plan.groups[0], "max": plan.groups[1]},
        "fit": {
            "fits": fit.fits,
            "gpu_bytes": fit.available,
            "used_bytes": fit.used,
            "weights_bytes": fit.weights,
            "kv_cache_bytes": fit.kv_cache,
            "activations_bytes": fit.activations,
            "vision_bytes": fit.vision,
            "runtime_bytes_assumed": fit.runtime,
            "kv_tokens": fit.kv_tokens,
        },
        "bound_per_group": {
            "measured": False,
            "prompt_tokens": plan.mix.prompt_tokens,
            "answer_tokens": plan.mix.answer_tokens,
            "batch": bound.batch,
            "alone_tokens_per_s": round(bound.alone_tokens_per_s, 1),
            "answer_tokens_per_s": round(bound.answer_tokens_per_s, 1),
            "prompt_tokens_per_s": round(bound.prompt_tokens_per_s, 1),
        },
        "prices_missing": list(plan.unpriced),
        "usd_per_hour": {
            "min": _text(plan.least_usd_per_hour),
            "ceiling": _text(plan.most_usd_per_hour),
        },
        "usd_per_month_ceiling": _text(_month(plan.most_usd_per_hour)),
        "utilisation": str(plan.utilisation),
        "usd_per_million_tokens": _text(economics.usd_per_million_tokens if economics else None),
        "usd_per_million_output_tokens": _text(
            economics.usd_per_million_output_tokens if economics else None
        ),
        "break_even_utilisation": _text(plan.break_even),
        "break_even_tokens_per_hour": economics.break_even_tokens_per_hour if economics else None,
    }


def as_text(plan: Plan) -> str:
    return "\n\n".join([_tiers(plan), _memory(plan), _speed(plan), _money(plan)])


def _tiers(plan: Plan) -> str:
    rows = [
        (
            pool.tier,
            pool.machine.name,
            pool.per_node,
            pool.least,
            pool.most,
            dollars(_text(pool.machine.usd_per_hour)),
        )
        for pool in plan.pools
    ]
    head = ("tier", "machine", "replicas a node", "min nodes", "max nodes", "USD an hour each")
    lines = [f"{plan.config.model.name} on {plan.cloud}", "", table(head, rows)]
    if all(pool.tier != "vision" for pool in plan.pools):
        lines.append("vision shares the decoder's GPUs")
    noted = {p.machine.name: p.machine.notes for p in plan.pools if p.machine.notes}
    return "\n".join([*lines, *(f"{name}: {notes}" for name, notes in noted.items())])


def _memory(plan: Plan) -> str:
    fit = plan.fit
    rows = [
        ("weights", size(fit.weights)),
        ("KV cache", size(fit.kv_cache)),
        ("activations", size(fit.activations)),
        *([("vision tier", size(fit.vision))] if fit.vision else []),
        ("CUDA, NCCL (assumed)", size(fit.runtime)),
        ("together", size(fit.used)),
        ("one GPU has", size(fit.available)),
    ]
    spare = fit.available - fit.used
    verdict = f"fits, {size(spare)} to spare" if fit.fits else f"{size(-spare)} TOO MUCH"
    return (
        f"{table(('each GPU of a decoder group', ''), rows)}\n{verdict}; the cache holds"
        f" {count(fit.kv_tokens)} tokens of all requests together"
    )


def _speed(plan: Plan) -> str:
    bound, mix = plan.bound, plan.mix
    least, most = plan.groups
    count_of = str(most) if least == most else f"{least} to {most}"
    return (
        f"At best (a bound by data sheets, NOT a measurement), one group, requests of"
        f" {count(mix.prompt_tokens)} prompt and {count(mix.answer_tokens)} answer tokens:\n"
        f"  {bound.answer_tokens_per_s:,.0f} answer and {bound.prompt_tokens_per_s:,.0f} prompt"
        f" tokens/s with {bound.batch} side by side; one alone"
        f" {bound.alone_tokens_per_s:,.1f} tokens/s\n"
        f"  groups: {count_of}"
    )


def _money(plan: Plan) -> str:
    if plan.unpriced:
        asked = " ".join(f"--usd-per-hour {name}=…" for name in plan.unpriced)
        return f"What it costs needs prices that are not known here; give\n  {asked}"
    economics, price = plan.economics, plan.price.price
    assert economics is not None
    sheet = (
        f"${usd_per_million(price.input_nano_usd_per_token)} in and"
        f" ${usd_per_million(price.output_nano_usd_per_token)} out per million"
        f" ({plan.price.basis})"
    )
    share = plan.break_even
    even = "at no load" if share is None else f"at {share:.1%} of the bound"
    if share is not None and share > 1:
        even += ", which is out of reach: these prices do not pay for these machines"
    rows = [
        ("an hour at the least", dollars(_text(plan.least_usd_per_hour))),
        ("an hour at the most (ceiling)", dollars(_text(plan.most_usd_per_hour))),
        ("a month at the most (ceiling)", dollars(_text(_month(plan.most_usd_per_hour)))),
        ("a million tokens", dollars(_cents(economics.usd_per_million_tokens))),
        ("a million answer tokens", dollars(_cents(economics.usd_per_million_output_tokens))),
    ]
    return (
        f"{table(('machines only', 'USD'), rows)}\n"
        f"per million at {plan.utilisation:%} of the bound with every node running; {_NOT_IN_IT}"
        f"\nlist price {sheet} breaks even {even}"
    )


def _month(usd_per_hour: Decimal | None) -> Decimal | None:
    return None if usd_per_hour is None else usd_per_hour * HOURS_A_MONTH


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"


def _cents(amount: Decimal | None) -> str | None:
    """A bound is not known to the nano-dollar."""
    return None if amount is None else f"{amount:.2f}"
