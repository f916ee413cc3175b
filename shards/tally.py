"""How much was computed for a request: what the accounts are settled by. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """Cumulative tokens of one choice of one attempt at a request.

    The prompt is computed once for all choices and counted with choice 0, split by what its tokens
    stand for; those found in the prefix cache are counted as cached instead. What a choice above 0
    computes again of the prompt's last block is not counted. A rejected draft is a guessed token
    that was computed for nothing: refused, or beyond the end of the answer.
    """

    request_id: str
    attempt: int
    choice: int
    text: int = 0
    image: int = 0
    cached_text: int = 0
    cached_image: int = 0
    output: int = 0
    rejected_draft: int = 0
