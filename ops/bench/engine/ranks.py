"""Two ranks of one thread each beside one rank of two: what cutting the model costs."""

from __future__ import annotations

from ops.bench.engine.group import Group, Measured
from ops.bench.engine.model import Model
from ops.bench.engine.prompts import text_prompt
from ops.bench.engine.report import Goal, Row
from ops.bench.engine.run import Budget, Spread, interleaved, prompts_of, require_equal

EIGHT = 8
_IDLE_S = 3.0


def two_ranks(model: Model, budget: Budget) -> Row:
    """Alone and eight at once; communication; what an idle rank uses."""
    threads = max(2, budget.threads)
    one, two = Group(model, 1, threads), Group(model, 2, threads // 2)
    try:
        alone = _both(model, one, two, 1, budget)
        eight = _both(model, one, two, EIGHT, budget)
        idle = two.idle_share(_IDLE_S)
    finally:
        one.close()
        two.close()
    figures: dict[str, float | Spread] = {}
    for title, runs in (("alone", alone), ("eight", eight)):
        for ranks, measured in runs.items():
            rates = [each.run.tokens_per_s for each in measured]
            figures[f"{title}: tokens/s, tp {ranks}"] = Spread.most(rates)
        shares = [each.communication_s / each.run.total_s for each in runs["2"]]
        figures[f"{title}: share of time in collectives"] = Spread.least(shares)
    return Row(
        "two ranks",
        f"Tensor-parallel 2 with {threads // 2} thread each beside 1 with {threads};"
        f" {budget.text_tokens} tokens in, {budget.new_tokens} out. Time in collectives is rank"
        " 0's, and counts its waiting for the other rank.",
        figures,
        (
            Goal("alone: tokens/s, x tp 1", _ratio(alone), 0.85),
            Goal("eight: tokens/s, x tp 1", _ratio(eight), 0.85),
            Goal("of a core, an idle rank", idle, 0.02, at_least=False),
        ),
    )


def _both(
    model: Model, one: Group, two: Group, count: int, budget: Budget
) -> dict[str, list[Measured]]:
    ask = prompts_of(lambda number: text_prompt(model, number, budget.text_tokens), count)
    runs = interleaved(
        max(1, budget.repeats - 1),
        {
            "1": lambda repetition: one.run(ask(repetition), budget.new_tokens),
            "2": lambda repetition: two.run(ask(repetition), budget.new_tokens),
        },
    )
    for mine, other in zip(*runs.values(), strict=True):
        require_equal(f"two ranks, {count} at once", other.run.tokens, mine.run.tokens)
    return runs


def _ratio(runs: dict[str, list[Measured]]) -> float:
    best = {
        ranks: max(each.run.tokens_per_s for each in measured) for ranks, measured in runs.items()
    }
    return best["2"] / best["1"]
