"""Guessing from the prompt where it pays: a model that copies the document in its prompt."""

from __future__ import annotations

from pathlib import Path

from ops.bench.engine.copying import copying
from ops.bench.engine.model import Model, written
from ops.bench.engine.ours import Ours, Settings
from ops.bench.engine.prompts import Prompt, words
from ops.bench.engine.report import Goal, Row
from ops.bench.engine.run import Budget, Run, Spread, TokensDifferError, interleaved, require_equal

MAX_DRAFTS = 7


def prompt_lookup(model: Model, budget: Budget, cache: Path | None = None) -> Row:
    """The same answers with drafts from the prompt and without, one request at a time."""
    copier = written(f"{model.name}-copies", model.config, cache, copying(model.config))
    plain = Ours.load(copier, Settings(sequences=1))
    try:
        guessing = Ours.load(copier, Settings(sequences=1, options=(("max_drafts", MAX_DRAFTS),)))
        try:
            return _row(plain, guessing, budget)
        finally:
            guessing.close()
    finally:
        plain.close()


def document_prompt(model: Model, number: int, length: int) -> tuple[Prompt, tuple[int, ...]]:
    """A mark, a document and the mark again; and the document, which is what is said next."""
    mark, *document = words(model, 70_000 + number, length + 1)
    return Prompt((1, 3, mark, *document, mark)), tuple(document)


def _row(plain: Ours, guessing: Ours, budget: Budget) -> Row:
    length = 2 * budget.new_tokens

    def ask(ours: Ours, number: int) -> Run:
        prompt, document = document_prompt(ours.model, number, length)
        run = ours.run([prompt], length)
        if run.tokens[0] != document:
            raise TokensDifferError("prompt lookup: the model did not copy its document")
        return run

    runs = interleaved(
        budget.repeats,
        {
            "plain": lambda number: ask(plain, number),
            "guessing": lambda number: ask(guessing, number),
        },
    )
    for one, other in zip(*runs.values(), strict=True):
        require_equal("prompt lookup", one.tokens, other.tokens)
    rates = {name: Spread.most([run.tokens_per_s for run in runs[name]]) for name in runs}
    steps = runs["guessing"][-1]
    return Row(
        "prompt lookup",
        f"A document of {length} tokens copied; at most {MAX_DRAFTS} drafts a step. Weights of the"
        " same shape, built so that the model copies; random ones repeat nothing.",
        {
            "tokens/s, plain": rates["plain"],
            "tokens/s, with lookup": rates["guessing"],
            "tokens a step": steps.count / len(steps.moments),
        },
        (Goal("tokens/s, x plain", rates["guessing"].best / rates["plain"].best, 1.8),),
    )
