"""What an answer may say, as the engine sees it; ``grammar.py`` fulfils it. Standard library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Matcher(Protocol):
    """One choice's place in its grammar."""

    def masks(self, drafts: Sequence[int]) -> tuple[bytes, ...]:
        """What may be drawn next, after the first draft, after the first two, and so on.

        Stops before the first draft that the grammar refuses, so it has one mask more than
        drafts are possible. Each as ``SampleSpec.mask``; empty where everything is allowed. The
        place does not move. A mask without a bit is a grammar at fault: see ``Choice.masks``.
        """

    def accept(self, token_id: int) -> None:
        """Move on by a token that was drawn under the mask, or the end of the answer.

        Raises:
            ValueError: the grammar forbids it.
        """


class Grammar(Protocol):
    """Compiled once, matched by any number of choices."""

    def matcher(self) -> Matcher:
        """At the beginning of an answer."""
