"""A running answer: the tiers' deltas in, pieces of its choices, usage and charges out."""

from __future__ import annotations

from collections.abc import Iterable

from serve_app.accounting.hold import Charge
from serve_app.gateway.choice import ChoiceReader, Piece, ReadingRules, merged
from serve_app.gateway.usage import Meter, Usage
from shards.request import Delta, FinishReason


class Generation:
    """Fed with ``read`` until ``running`` is empty.

    ``aborted`` tells that some choice did not end by itself; what it used is counted all the same.
    """

    def __init__(self, rules: ReadingRules, choices: int) -> None:
        self.aborted = False
        self._meter = Meter()
        self._readers = [ChoiceReader(choice, rules) for choice in range(choices)]
        self._running = set(range(choices))

    @property
    def running(self) -> tuple[int, ...]:
        """Choices that have not ended."""
        return tuple(sorted(self._running))

    @property
    def usage(self) -> Usage:
        """So far."""
        return self._meter.usage

    @property
    def charges(self) -> tuple[Charge, ...]:
        """So far."""
        return self._meter.charges

    def read(self, deltas: Iterable[Delta]) -> list[Piece]:
        """What the deltas show, one piece per choice."""
        pieces = []
        for delta in deltas:
            self._meter.read(delta)
            if delta.finish_reason is not None:
                self._running.discard(delta.choice)
            if delta.finish_reason is FinishReason.ABORT:
                self.aborted = True
            else:
                pieces.append(self._readers[delta.choice].read(delta))
        return merged(pieces)
