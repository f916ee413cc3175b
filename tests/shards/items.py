"""One sequence's part of a step, as ``StepLayout.of`` asks for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    token_ids: tuple[int, ...]
    start: int
    block_table: tuple[int, ...]
