"""Against transformers and the machine's limits: alone, eight and sixteen at once, first token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ops.bench.engine.limits import Limits, gemm_rate
from ops.bench.engine.matvec import MatrixVector
from ops.bench.engine.model import Model
from ops.bench.engine.ours import Ours
from ops.bench.engine.prompts import Prompt, picture_prompt, text_prompt
from ops.bench.engine.report import Goal, Row
from ops.bench.engine.run import (
    Budget,
    Run,
    Spread,
    interleaved,
    prompts_of,
    require_equal,
)
from ops.bench.engine.theirs import Theirs
from ops.bench.engine.work import attention_flops, products

EIGHT = 8
SIXTEEN = 16
# Of the sixteen, asked one after the other; the rest would take as long again.
_SAMPLE = 4
# Of an answer in the sixteen's round that does not count: what it warms is vision and prefill.
_WARM_UP_TOKENS = 2
# Counted rounds of continuous batching.
_CONTINUOUS = 2
_UNQUIET = "More than the limit that was measured: the machine was not quiet, so measure again."


@dataclass(frozen=True, slots=True)
class _Both:
    """Runs in turn, each of ours right after ``matvec``, bytes/s of the best product then."""

    mine: list[Run]
    yours: list[Run]
    matvec: Spread


def alone(ours: Ours, theirs: Theirs, limits: Limits, matvec: MatrixVector, budget: Budget) -> Row:
    """One sequence: each step reads the weights once, and nothing else takes time."""
    both = _both(ours, theirs, matvec, budget, 1)
    mine, yours = both.mine, both.yours
    rates = [run.decode_tokens_per_s for run in mine]
    read = Spread.most([run.decode_steps_per_s * ours.model.step_bytes for run in mine])
    return Row(
        "alone",
        f"{budget.text_tokens} tokens in, {budget.new_tokens} out, one request.",
        {
            "decode tokens/s": Spread.most(rates),
            "decode tokens/s, transformers": Spread.most([r.decode_tokens_per_s for r in yours]),
            "tokens/s": Spread.most([run.tokens_per_s for run in mine]),
            "tokens/s, transformers": Spread.most([run.tokens_per_s for run in yours]),
            "ms per token": _ms_per_token(mine),
            "ms to first token": _ms_to_first(mine),
            "ms to first token, transformers": _ms_to_first(yours),
            "weights read, GB/s": _scaled(read, 1e-9),
            "best matrix-vector in between, GB/s": _scaled(both.matvec, 1e-9),
            "weights read, of the best matrix-vector's best pass": read.best / limits.matvec,
        },
        (
            Goal("weights read, of the best matrix-vector", read.best / both.matvec.best, 0.75),
            Goal("tokens/s, x transformers", _ratio(mine, yours), 1.6),
        ),
        (_UNQUIET,) if read.best > both.matvec.best else (),
    )


def eight(ours: Ours, theirs: Theirs, matvec: MatrixVector, budget: Budget) -> Row:
    """Eight sequences at once beside transformers' static batch of eight."""
    both = _both(ours, theirs, matvec, budget, EIGHT)
    mine, yours = both.mine, both.yours
    read = Spread.most([run.decode_steps_per_s * ours.model.step_bytes for run in mine])
    flops = _decode_flops(ours.model)
    figures: dict[str, float | Spread] = {
        "tokens/s": Spread.most([run.tokens_per_s for run in mine]),
        "tokens/s, static batch": Spread.most([run.tokens_per_s for run in yours]),
        "decode tokens/s": Spread.most([run.decode_tokens_per_s for run in mine]),
        "decode tokens/s, static batch": Spread.most([r.decode_tokens_per_s for r in yours]),
        "ms per token": _ms_per_token(mine),
        "ms until all have one": Spread.least([1e3 * run.begun_s for run in mine]),
        "weights read, GB/s": _scaled(read, 1e-9),
        "weights read, of the best matrix-vector": read.best / both.matvec.best,
        "decode GFLOP/s": _scaled(Spread.most([r.decode_tokens_per_s for r in mine]), flops / 1e9),
    }
    notes = []
    continuous = _continuous(theirs, budget)
    if isinstance(continuous, str):
        notes.append(continuous)
    else:
        figures["tokens/s, continuous batching"] = continuous
    return Row(
        "eight",
        f"{budget.text_tokens} tokens in, {budget.new_tokens} out, {EIGHT} at once.",
        figures,
        (Goal("tokens/s, x static batch", _ratio(mine, yours), 2.2),),
        tuple(notes),
    )


def sixteen_pictures(ours: Ours, theirs: Theirs, budget: Budget) -> Row:
    """Sixteen at once with a picture each, vision included, beside the better of two ways."""
    ask = prompts_of(_pictures(ours.model, budget), SIXTEEN)
    tokens = budget.new_tokens // 2

    def most(repetition: int) -> int:
        return tokens if repetition else _WARM_UP_TOKENS

    def sampled(repetition: int) -> Run:
        return theirs.back_to_back(ask(repetition)[:_SAMPLE], most(repetition))

    runs = interleaved(
        max(1, budget.repeats - 1),
        {
            "ours": lambda repetition: ours.run(ask(repetition), most(repetition)),
            "static": lambda repetition: theirs.run(ask(repetition), most(repetition)),
            "back to back": sampled,
        },
    )
    for mine, static, single in zip(*runs.values(), strict=True):
        require_equal("sixteen pictures, static batch", mine.tokens, static.tokens)
        require_equal("sixteen pictures, back to back", mine.tokens[:_SAMPLE], single.tokens)
    rates = {name: Spread.most([r.tokens_per_s for r in runs[name]]) for name in runs}
    best = max(rates["static"].best, rates["back to back"].best)
    return Row(
        "sixteen pictures",
        f"{SIXTEEN} at once, a picture of {budget.small_side} pixels square and"
        f" {budget.text_tokens} tokens in, {tokens} out; vision counted.",
        {
            "tokens/s": rates["ours"],
            "tokens/s, static batch": rates["static"],
            "tokens/s, back to back": rates["back to back"],
            "s until all have a token": Spread.least([run.begun_s for run in runs["ours"]]),
            "decode tokens/s": Spread.most([run.decode_tokens_per_s for run in runs["ours"]]),
        },
        (Goal("tokens/s, x their best", rates["ours"].best / best, 2.0),),
        (
            f"Back to back is measured on {_SAMPLE} of them. transformers' continuous batching"
            " takes token ids only, no pictures.",
        ),
    )


def first_token(ours: Ours, theirs: Theirs, budget: Budget) -> Row:
    """One token after a large picture: what vision and prefill take."""
    model = ours.model
    ask = prompts_of(lambda number: picture_prompt(model, number, budget.side, _beside(budget)), 1)
    (prompt,) = ask(0)
    patches = sum(grid.patches for grid in prompt.grids)
    rates: list[float] = []

    def mine_after_products(repetition: int) -> Run:
        rates.append(gemm_rate(model, len(prompt.token_ids), patches)[0])
        return ours.run(ask(repetition), 1)

    runs = interleaved(
        budget.repeats,
        {
            "ours": mine_after_products,
            "theirs": lambda repetition: theirs.run(ask(repetition), 1),
        },
    )
    gemm = Spread.most(rates[1:])
    for mine, yours in zip(*runs.values(), strict=True):
        require_equal("first token", mine.tokens, yours.tokens)
    linear, attention = prompt_flops(model, prompt)
    took = Spread.least([run.first_s for run in runs["ours"]])
    theirs_took = Spread.least([run.first_s for run in runs["theirs"]])
    rate = (linear + attention) / took.best
    return Row(
        "first token",
        f"A picture of {budget.side} pixels square, {len(prompt.token_ids)} tokens in; vision"
        " counted.",
        {
            "s to first token": took,
            "s to first token, transformers": theirs_took,
            "GFLOP in products": linear / 1e9,
            "GFLOP in attention": attention / 1e9,
            "GFLOP/s": rate / 1e9,
            "products in between, GFLOP/s": _scaled(gemm, 1e-9),
            "products alone, of the product rate": linear / took.best / gemm.best,
        },
        (
            Goal("of transformers' time", took.best / theirs_took.best, 0.9, at_least=False),
            Goal("of the product rate, attention counted", rate / gemm.best, 0.85),
        ),
    )


def prompt_flops(model: Model, prompt: Prompt) -> tuple[int, int]:
    """Of a prompt's first token: in products with weights, in attention."""
    patches = sum(grid.patches for grid in prompt.grids)
    linear = products(model.config, len(prompt.token_ids), patches)
    return (
        sum(product.flops for product in linear),
        attention_flops(model.config, len(prompt.token_ids), prompt.grids),
    )


def _both(ours: Ours, theirs: Theirs, matvec: MatrixVector, budget: Budget, count: int) -> _Both:
    """Runs of ``count`` text prompts at once, in turn; the same tokens each time."""
    model = ours.model
    ask = prompts_of(lambda number: text_prompt(model, number, budget.text_tokens), count)
    bandwidths: list[float] = []

    def mine_after_products(repetition: int) -> Run:
        bandwidths.append(matvec.stretch())
        return ours.run(ask(repetition), budget.new_tokens)

    runs = interleaved(
        budget.repeats,
        {
            "ours": mine_after_products,
            "theirs": lambda repetition: theirs.run(ask(repetition), budget.new_tokens),
        },
    )
    for mine, yours in zip(*runs.values(), strict=True):
        require_equal(f"{count} at once", mine.tokens, yours.tokens)
    return _Both(runs["ours"], runs["theirs"], Spread.most(bandwidths[1:]))


def _continuous(theirs: Theirs, budget: Budget) -> Spread | str:
    """Tokens/s of transformers' continuous batching, or why it gives none.

    It knows no banned ids, so its tokens are held against ``generate``'s without them.
    """
    model = theirs.model
    ask = prompts_of(lambda number: text_prompt(model, number, budget.text_tokens), EIGHT)
    runs = {
        "continuous": lambda repetition: theirs.continuous(ask(repetition), budget.new_tokens),
        "static": lambda repetition: theirs.run(ask(repetition), budget.new_tokens, banned=False),
    }
    try:
        found = interleaved(_CONTINUOUS, runs)
    except Exception as error:  # made for CUDA: it may fail in any way
        return f"transformers' continuous batching failed: {type(error).__name__}: {error}."
    if any(one.tokens != other.tokens for one, other in zip(*found.values(), strict=True)):
        return "transformers' continuous batching draws other tokens than its generate."
    return Spread.most([run.tokens_per_s for run in found["continuous"]])


def _pictures(model: Model, budget: Budget) -> Callable[[int], Prompt]:
    return lambda number: picture_prompt(model, number, budget.small_side, budget.text_tokens)


def _beside(budget: Budget) -> int:
    """Text tokens beside the large picture: 23, with which a prompt of 512 pixels has 1,079."""
    return min(23, budget.text_tokens)


def _decode_flops(model: Model) -> int:
    """Operations with weights to decode one token."""
    return sum(product.flops for product in products(model.config, 1, 0))


def _ratio(mine: Sequence[Run], yours: Sequence[Run]) -> float:
    return max(run.tokens_per_s for run in mine) / max(run.tokens_per_s for run in yours)


def _ms_per_token(runs: Sequence[Run]) -> Spread:
    return Spread.least([1e3 / run.decode_steps_per_s for run in runs])


def _ms_to_first(runs: Sequence[Run]) -> Spread:
    return Spread.least([1e3 * run.first_s for run in runs])


def _scaled(spread: Spread, factor: float) -> Spread:
    return Spread(spread.best * factor, spread.median * factor)
