"""Which team is served next: weighted virtual token counters. Standard library only.

After Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024, arXiv 2401.00588),
algorithm 2: each team has a counter of the service it received, over its weight, and the team with
the lowest is served first. A team that asks again after it wanted nothing is lifted to the lowest
counter of those that want more, so that being idle earns no credit.

Service is counted in tokens as there: 1 for each prompt token computed, 2 for each drawn. What was
found in the prefix cache cost nothing and counts nothing, nor does what is computed again because
a choice was put back, nor a refused draft: those are the engine's doing.

Differences: a prompt is counted as its chunks are computed, not when it is seated, so that the
counters can also decide whose chunk goes first. Until then its tokens are ``owed``, and a seat goes
to the team that has the least of both. And a team that holds more of the seats or of the cache than
its weight's part gives them up for one that keeps within its own (scheduler.py): a short question
need not wait for long answers to end.
"""

from __future__ import annotations

from shards.request import Tenant

PROMPT_TOKEN = 1
OUTPUT_TOKEN = 2

# Accounts kept of teams that want nothing; each is a few numbers.
ACCOUNTS_LIMIT = 4096


class Account:
    """One team's service.

    Attributes:
        counter: service received, over the weight.
        waiting: choices that wait for a seat.
        seated: choices that have one.
        owed: prompt tokens of those seated that are still to be computed.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.counter = 0.0
        self.waiting = 0
        self.seated = 0
        self.owed = 0

    @property
    def wants_more(self) -> bool:
        return self.waiting > 0 or self.owed > 0

    @property
    def committed(self) -> float:
        """The counter once all is computed that has a seat."""
        return self.counter + self.owed * PROMPT_TOKEN / self.weight


class Shares:
    """The accounts of all teams."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        # The last that wanted more: what idle teams are lifted to while no other does.
        self._last = Account(1)

    def account(self, tenant: Tenant) -> Account:
        """A team's, with the weight last heard of."""
        account = self._accounts.get(tenant.team)
        if account is None:
            if len(self._accounts) >= ACCOUNTS_LIMIT:
                self._forget()
            account = self._accounts[tenant.team] = Account(tenant.weight)
        account.weight = tenant.weight
        return account

    def wait(self, account: Account) -> None:
        """One more choice waits."""
        if not account.wants_more:
            account.counter = max(account.counter, self._level())
        account.waiting += 1

    def wait_no_more(self, account: Account) -> None:
        account.waiting -= 1
        self._note(account)

    def sit(self, account: Account, owed: int) -> None:
        """A choice that waited is seated, with so many prompt tokens to compute."""
        account.seated += 1
        account.owed += owed
        self.wait_no_more(account)

    def rise(self, account: Account, owed: int) -> None:
        """A choice leaves its seat, with so many prompt tokens not computed."""
        account.seated -= 1
        account.owed -= owed
        self._note(account)

    def serve(self, account: Account, prompt: int = 0, output: int = 0) -> None:
        """Tokens were computed for a team, and drawn."""
        account.owed -= prompt
        account.counter += (prompt * PROMPT_TOKEN + output * OUTPUT_TOKEN) / account.weight
        self._note(account)

    @property
    def present(self) -> float:
        """Weight of all teams that have or want a seat; each is due its own weight's part."""
        return sum(one.weight for one in self._accounts.values() if one.seated or one.waiting)

    def _level(self) -> float:
        wanting = [one.counter for one in self._accounts.values() if one.wants_more]
        return min(wanting, default=self._last.counter)

    def _note(self, account: Account) -> None:
        if not account.wants_more:
            self._last = account

    def _forget(self) -> None:
        """Teams that would be lifted anyway lose nothing when they are forgotten."""
        level = self._level()
        self._accounts = {
            team: account
            for team, account in self._accounts.items()
            if account.wants_more or account.seated or account.counter > level
        }
