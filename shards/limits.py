"""What the cache and a step hold. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What the engine may use.

    Attributes:
        max_context_tokens: most tokens of prompt and answer together.
        max_batch_sequences: most choices that run at once.
        max_step_tokens: most tokens that one step computes, at least ``max_batch_sequences``.
        max_waiting: most requests that wait for room before anything of theirs was computed.
        prefix_cache: whether requests find what others computed; the choices of one request
            share their prompt anyway.
        max_drafts: most tokens guessed ahead per choice and step; 0 to guess none.
        headroom_tokens: how much further every running choice must be able to go before another
            is seated. More means fewer choices put back, and fewer that run at once.
    """

    num_blocks: int
    block_size: int
    max_context_tokens: int
    max_batch_sequences: int
    max_step_tokens: int
    max_waiting: int
    prefix_cache: bool = True
    max_drafts: int = 0
    headroom_tokens: int = 64

    def __post_init__(self) -> None:
        for name in ("num_blocks", "block_size", "max_context_tokens", "max_batch_sequences"):
            self._at_least(name, 1)
        for name in ("max_step_tokens", "max_waiting"):
            self._at_least(name, 1)
        for name in ("max_drafts", "headroom_tokens"):
            self._at_least(name, 0)
        if self.max_step_tokens < self.max_batch_sequences:
            raise ValueError(
                f"max_step_tokens {self.max_step_tokens} is below max_batch_sequences "
                f"{self.max_batch_sequences}: a full batch could not decode"
            )

    def blocks(self, positions: int) -> int:
        """Blocks that hold so many positions."""
        return -(-positions // self.block_size)

    def _at_least(self, name: str, least: int) -> None:
        if getattr(self, name) < least:
            raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
