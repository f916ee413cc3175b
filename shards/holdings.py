"""What each team holds of the seats and of the cache, beside its part. Standard library only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from shards.choice import Choice
from shards.fairness import Account
from shards.limits import Limits


class Holdings:
    """A block that several tables of a team share is held by it once.

    Args:
        present: weight of all teams that have or want a seat.
    """

    def __init__(self, seated: Iterable[Choice], present: float, limits: Limits) -> None:
        self._present = present
        self._limits = limits
        self._seats: Counter[Account] = Counter()
        # Team → block → tables of the team that it is in
        self._tables: dict[Account, Counter[int]] = {}
        for choice in seated:
            account = choice.generation.account
            self._seats[account] += 1
            self._tables.setdefault(account, Counter()).update(choice.block_table)

    def give(self, account: Account, table: Sequence[int]) -> None:
        """One of its choices loses its seat."""
        self._seats[account] -= 1
        tables = self._tables[account]
        for block in table:
            tables[block] -= 1
            if tables[block] == 0:
                del tables[block]

    def exceed(self, account: Account) -> bool:
        """Whether a team has more than its part of the seats (but one at least) or the cache."""
        return self._more(account, self._seats[account], len(self._tables[account]))

    def would_exceed(self, account: Account, shared: Iterable[int], fresh: int) -> bool:
        """Whether it would with one more choice, on blocks there are and so many others."""
        tables = self._tables.get(account, Counter())
        blocks = len(tables) + sum(block not in tables for block in shared) + fresh
        return self._more(account, self._seats[account] + 1, blocks)

    def _more(self, account: Account, seats: int, blocks: int) -> bool:
        part = account.weight / self._present
        return (
            seats > max(1, int(part * self._limits.max_batch_sequences))
            or blocks > part * self._limits.num_blocks
        )
