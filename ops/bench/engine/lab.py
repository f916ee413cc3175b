"""What is measured and on what: the scenarios by name, and what they share, loaded when needed."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path

import torch

from ops.bench.engine import limits as machine
from ops.bench.engine.limits import Limits
from ops.bench.engine.matvec import MatrixVector
from ops.bench.engine.model import Model, written
from ops.bench.engine.ours import Ours, Settings
from ops.bench.engine.prompts import picture_prompt
from ops.bench.engine.report import Report, Row
from ops.bench.engine.run import Budget
from ops.bench.engine.theirs import Theirs
from ops.nano import NANO


class Lab:
    """One model, the machine's limits, our engine and transformers on the same weights.

    Args:
        cache: where models lie; the user's cache folder when None.
    """

    def __init__(self, model: Model, budget: Budget, cache: Path | None = None) -> None:
        self.model = model
        self.budget = budget
        self.cache = cache

    @cached_property
    def limits(self) -> Limits:
        self.budget.say("limits of the machine")
        prompt = picture_prompt(self.model, 0, self.budget.side, 23)
        patches = sum(grid.patches for grid in prompt.grids)
        return machine.measure(self.model, self.matvec, len(prompt.token_ids), patches)

    @cached_property
    def matvec(self) -> MatrixVector:
        return MatrixVector(self.model)

    @cached_property
    def ours(self) -> Ours:
        self.budget.say("loading our engine")
        return Ours.load(self.model)

    @cached_property
    def theirs(self) -> Theirs:
        self.budget.say("loading transformers")
        return Theirs(self.model, self.ours.bans)

    def let_go(self, name: str) -> None:
        """Free ``ours``, ``theirs`` or ``matvec``, if it was loaded."""
        loaded = self.__dict__.pop(name, None)
        if isinstance(loaded, Ours):
            loaded.close()
        del loaded
        gc.collect()

    def close(self) -> None:
        for name in ("ours", "theirs", "matvec"):
            self.let_go(name)


def alone(lab: Lab) -> Row:
    from ops.bench.engine.speed import alone as scenario

    return scenario(lab.ours, lab.theirs, lab.limits, lab.matvec, lab.budget)


def eight(lab: Lab) -> Row:
    from ops.bench.engine.speed import eight as scenario

    return scenario(lab.ours, lab.theirs, lab.matvec, lab.budget)


def sixteen_pictures(lab: Lab) -> Row:
    from ops.bench.engine.speed import sixteen_pictures as scenario

    return scenario(lab.ours, lab.theirs, lab.budget)


def first_token(lab: Lab) -> Row:
    from ops.bench.engine.speed import first_token as scenario

    return scenario(lab.ours, lab.theirs, lab.budget)


def second_turn(lab: Lab) -> Row:
    from ops.bench.engine.sharing import second_turn as scenario

    return scenario(lab.ours, lab.budget)


def whole_stack(lab: Lab) -> Row:
    from ops.bench.engine.stack import whole_stack as scenario

    lab.let_go("theirs")
    lab.let_go("matvec")
    return scenario(lab.model, lab.ours, lab.budget)


def two_teams(lab: Lab) -> Row:
    from ops.bench.engine.sharing import two_teams as scenario

    lab.close()
    return scenario(lab.model, lab.budget)


def prompt_lookup(lab: Lab) -> Row:
    from ops.bench.engine.lookup import prompt_lookup as scenario

    lab.close()
    return scenario(lab.model, lab.budget, lab.cache)


def two_ranks(lab: Lab) -> Row:
    from ops.bench.engine.ranks import two_ranks as scenario

    lab.close()
    return scenario(lab.model, lab.budget)


def soak(lab: Lab) -> Row:
    from ops.bench.engine.soak import soak as scenario

    lab.close()
    ours = Ours.load(written("soak", NANO, lab.cache), Settings(kv_bytes=4 * 2**20))
    try:
        return scenario(ours, lab.budget)
    finally:
        ours.close()


# In the order in which they are measured: those that share what is loaded stand together.
SCENARIOS: Mapping[str, Callable[[Lab], Row]] = {
    "alone": alone,
    "eight": eight,
    "first-token": first_token,
    "second-turn": second_turn,
    "sixteen-pictures": sixteen_pictures,
    "whole-stack": whole_stack,
    "two-teams": two_teams,
    "prompt-lookup": prompt_lookup,
    "two-ranks": two_ranks,
    "soak": soak,
}


def measure(lab: Lab, names: tuple[str, ...], keep: Callable[[Report], None]) -> Report:
    """Every scenario of ``names`` in turn.

    Args:
        keep: is told of what is there after each of them: the rest may fail.

    Raises:
        TokensDifferError: ours are not theirs; what was measured before is kept.
    """
    torch.set_num_threads(lab.budget.threads)
    report = Report(lab.limits, lab.budget.threads)
    try:
        for name in names:
            lab.budget.say(name)
            report = report.with_row(SCENARIOS[name](lab))
            keep(report)
    finally:
        lab.close()
    return report
