"""One request's ledger lines beside the engine's counts of it: what is lacking, what is wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from serve_app.accounting.hold import Charge
from serve_app.accounting.tokens import Kind, Tokens
from shards.tally import Tally


@dataclass(frozen=True, slots=True)
class Booked:
    """What a line says of tokens; ``waste`` tells whose it is."""

    attempt: int
    choice: int
    kind: Kind
    tokens: int
    waste: bool = False


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A count that waste lines cannot make equal; ``counted`` is None where the engine's journals
    have nothing of that choice at all."""

    attempt: int
    choice: int
    kind: Kind
    booked: int
    counted: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """``waste`` is to be booked; about ``discrepancies`` nothing can be done."""

    waste: tuple[Charge, ...] = ()
    discrepancies: tuple[Discrepancy, ...] = ()


def compare(counted: Iterable[Tally], booked: Iterable[Booked]) -> Comparison:
    """What one request's lines lack of its tallies, and where that cannot be booked: more lines
    than tallies, or counts that grew after waste had been booked (a line is never changed)."""
    tallies_by_choice = {(tally.attempt, tally.choice): tally for tally in counted}
    lines_by_choice: dict[tuple[int, int], list[Booked]] = defaultdict(list)
    for line in booked:
        lines_by_choice[line.attempt, line.choice].append(line)
    waste, discrepancies = [], []
    for attempt, choice in sorted({*tallies_by_choice, *lines_by_choice}):
        tally = tallies_by_choice.get((attempt, choice))
        lacking: dict[str, int] = {}
        for kind in Kind:
            of_kind = [line for line in lines_by_choice[attempt, choice] if line.kind is kind]
            total = sum(line.tokens for line in of_kind)
            count: int = getattr(tally, kind.value) if tally is not None else 0
            if count > total and not any(line.waste for line in of_kind):
                lacking[kind.value] = count - total
            elif count != total:
                seen = None if tally is None else count
                discrepancies.append(Discrepancy(attempt, choice, kind, total, seen))
        if lacking:
            waste.append(Charge(attempt, choice, Tokens(**lacking)))
    return Comparison(tuple(waste), tuple(discrepancies))
