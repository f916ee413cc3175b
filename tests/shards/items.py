"""What a step computes of a sequence, as far as a layout asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """See ``shards.attention.Item``."""

    token_ids: tuple[int, ...]
    start: int
    block_table: Sequence[int]
