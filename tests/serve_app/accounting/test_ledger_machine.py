"""Thousands of random steps of hold, settle, expire, replay, refund and refusal, on both stores.

What must hold is computed from the rows themselves (invariants.py), not by the code under test; at
the end the product's own proof is asked too.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from serve_app.accounting.adjusting import adjust
from serve_app.accounting.calendar import month_of
from serve_app.accounting.database import Database
from serve_app.accounting.hold import Charge, Hold, Outcome, Payer, Scope, Settlement
from serve_app.accounting.ledger import Ledger
from serve_app.accounting.reconcile import reconcile
from serve_app.accounting.schema import (
    WASTE_ACCOUNT,
    lines,
)
from serve_app.accounting.settling import Closing, Waste, book_waste, close_holds
from serve_app.accounting.tokens import Tokens
from serve_app.config import Accounting
from serve_app.errors import BudgetExhausted, Conflict, InvalidRequest, RateLimited
from tests.serve_app.accounting.invariants import Books
from tests.serve_app.accounting.shop import AMOUNT, NOON_US, Shop

STEPS_PER_RUN, RUNS = 100, 35
LEAST_STEPS = 2_000
CHECK_EVERY = 10
CHARGED = (Outcome.COMPLETED, Outcome.DISCONNECTED)
FREE = (Outcome.FAILED, Outcome.REFUSED)

T = TypeVar("T")


@dataclass
class World:
    """The store and its loop, kept for all runs."""

    runner: asyncio.Runner
    database: Database
    shop: Shop
    runs: int = 0
    steps: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)


class Machine(RuleBasedStateMachine):
    """One organisation of two teams with two keys each, all with tiny limits; two gateways."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.shop = world.shop
        self.steps = 0
        self.organisation_id = 0
        self.account_ids: list[int] = []
        self.payers: list[Payer] = []
        self.held: list[Hold] = []
        self.closed: list[tuple[Hold, Settlement]] = []
        self.wasted: set[str] = set()
        self.refunded: Counter[int] = Counter()
        self.ledgers = [
            Ledger(world.database, Accounting(), owner=f"gateway-{n}", clock=self.shop.clock)
            for n in range(2)
        ]
        world.runs += 1
        self.shop.now_us = NOON_US
        world.run(self._start())

    async def _start(self) -> None:
        for ledger in self.ledgers:
            await ledger.start()

    def teardown(self) -> None:
        if self.payers:
            self._check()
        self.world.run(self._stop())
        self.world.steps += self.steps

    async def _stop(self) -> None:
        for ledger in self.ledgers:
            await ledger.close()

    @initialize(
        budgets=st.lists(st.one_of(st.none(), st.integers(1, 12)), min_size=7, max_size=7),
        limits=st.lists(st.one_of(st.none(), st.integers(2, 9)), min_size=7, max_size=7),
    )
    def begin(self, budgets: list[int | None], limits: list[int | None]) -> None:
        self.world.run(self._begin(budgets, limits))

    async def _begin(self, budgets: list[int | None], limits: list[int | None]) -> None:
        shop, name = self.shop, str(self.world.runs)
        self.organisation_id = await shop.account(Scope.ORGANISATION, name, None)
        self.account_ids.append(self.organisation_id)
        for team in range(2):
            team_id = await shop.account(Scope.TEAM, f"team {team}", self.organisation_id)
            keys = [await shop.account(Scope.KEY, f"key {key}", team_id) for key in range(2)]
            self.account_ids += [team_id, *keys]
            self.payers += [Payer(key_id, team_id, self.organisation_id) for key_id in keys]
        for account_id, budget, limit in zip(self.account_ids, budgets, limits, strict=True):
            await shop.limit(
                account_id,
                budget_nano_usd=None if budget is None else budget * AMOUNT + AMOUNT // 2,
                max_concurrent=limit,
                requests_per_minute=None if limit is None else 12 * limit,
                output_tokens_per_minute=None if limit is None else 300 * limit,
            )

    # Steps

    @rule(
        gateway=st.integers(0, 1),
        asked=st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([1, 50, 80])), min_size=1, max_size=6
        ),
    )
    def hold(self, gateway: int, asked: list[tuple[int, int]]) -> None:
        """By one or several at once."""
        self.steps += 1
        requests = [
            self.shop.request(payer=self.payers[key], max_output_tokens=output)
            for key, output in asked
        ]
        hold = self.ledgers[gateway].hold
        for result in self.world.run(_together(hold(request) for request in requests)):
            self.world.outcomes[type(result).__name__] += 1
            if isinstance(result, Hold):
                assert result.month == month_of(self.shop.now_us)
                self.held.append(result)
            else:
                assert isinstance(result, BudgetExhausted | RateLimited | InvalidRequest), result

    @precondition(lambda self: self.held)
    @rule(
        which=st.integers(0), outcome=st.sampled_from([*CHARGED, *FREE]), used=st.integers(0, 100)
    )
    def settle(self, which: int, outcome: Outcome, used: int) -> None:
        self.steps += 1
        hold = self.held.pop(which % len(self.held))
        settlement = _settlement(hold, outcome, used)
        self.world.run(self.ledgers[used % 2].settle(hold, settlement))
        self.closed.append((hold, settlement))

    @precondition(lambda self: self.held)
    @rule(used=st.integers(0, 100))
    def settle_all_at_once(self, used: int) -> None:
        self.steps += 1
        ending = [(hold, _settlement(hold, Outcome.COMPLETED, used)) for hold in self.held]
        self.held.clear()
        self.world.run(
            _together(
                self.ledgers[number % 2].settle(hold, settlement)
                for number, (hold, settlement) in enumerate(ending + ending)
            )
        )
        self.closed += ending

    @precondition(lambda self: self.closed)
    @rule(
        which=st.integers(0), outcome=st.sampled_from([*CHARGED, *FREE]), used=st.integers(0, 100)
    )
    def settle_again(self, which: int, outcome: Outcome, used: int) -> None:
        """By the other gateway, and with another story."""
        self.steps += 1
        hold, _ = self.closed[which % len(self.closed)]
        settlement = _settlement(hold, outcome, used)
        self.world.run(self.ledgers[used % 2].settle(hold, settlement))

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0), left=st.booleans(), used=st.integers(0, 100))
    def expire(self, which: int, left: bool, used: int) -> None:
        """A gateway died: the sweeper ends its hold, for the team if its client had left."""
        self.steps += 1
        hold = self.held.pop(which % len(self.held))
        settlement = Settlement(Outcome.RECOVERED, _charges(hold, used) if left else ())
        closing = Closing(hold.request_id, settlement)
        ended = self.world.run(self._close(closing))
        assert ended == (hold.request_id,)
        assert self.world.run(self._close(closing)) == ()
        self.closed.append((hold, settlement))

    @precondition(lambda self: self.closed)
    @rule(which=st.integers(0), tokens=st.integers(1, 50))
    def book_waste(self, which: int, tokens: int) -> None:
        self.steps += 1
        hold, _ = self.closed[which % len(self.closed)]
        if hold.request_id not in self.wasted:
            self.wasted.add(hold.request_id)
            self.world.run(self._waste(hold, tokens))

    @precondition(lambda self: self.closed)
    @rule(which=st.integers(0), share=st.one_of(st.none(), st.integers(1, 120)))
    def refund(self, which: int, share: int | None) -> None:
        """A share of a line in percent, which may be more than is left of it."""
        self.steps += 1
        hold, _ = self.closed[which % len(self.closed)]
        self.world.run(self._refund(hold, which, share))

    @rule(seconds=st.sampled_from([1, 20, 60, 86_400, 20 * 86_400]))
    def pass_time(self, seconds: int) -> None:
        self.steps += 1
        self.shop.pass_s(seconds)

    # What must hold

    @invariant()
    def accounts_agree(self) -> None:
        if self.payers and self.steps % CHECK_EVERY == 0:
            self._check()

    def _check(self) -> None:
        async def read() -> Books:
            async with self.world.database.read() as connection:
                return await Books.read(connection, self.organisation_id, self.account_ids)

        self.world.run(read()).check(self.organisation_id, self.held, self.closed)

    # How

    async def _close(self, closing: Closing) -> tuple[str, ...]:
        async with self.world.database.write() as connection:
            return await close_holds(connection, [closing], self.shop.now_us)

    async def _waste(self, hold: Hold, tokens: int) -> None:
        waste = Waste(hold.request_id, Charge(1, 0, Tokens(text=tokens, output=tokens)))
        async with self.world.database.write() as connection:
            await book_waste(connection, [waste], self.shop.now_us)

    async def _refund(self, hold: Hold, which: int, share: int | None) -> None:
        charged = select(lines).where(
            lines.c.request_id == hold.request_id, lines.c.account_id != WASTE_ACCOUNT
        )
        async with self.world.database.read() as connection:
            found = list(await connection.execute(charged.order_by(lines.c.id)))
        if not found:
            return
        line = found[which % len(found)]
        amount = None if share is None else max(1, line.nano_usd * share // 100)
        left = line.nano_usd - self.refunded[line.id]
        fits = left > 0 if amount is None else amount <= left
        refund = adjust(
            self.world.database,
            line.id,
            amount,
            reason="random",
            actor="test",
            clock=self.shop.clock,
        )
        if fits:
            made = await refund
            assert made.nano_usd == (left if amount is None else amount)
            self.refunded[line.id] += made.nano_usd
        else:
            with pytest.raises(Conflict):
                await refund


def _charges(hold: Hold, used: int) -> tuple[Charge, ...]:
    """``used`` percent of what was held, in two choices where there are two tokens."""
    prompt = hold.request.tokens
    text = prompt.text * used // 100
    output = hold.request.max_output_tokens * used // 100
    first = Tokens(text=text, cached_image=prompt.image, output=output // 2)
    return (Charge(0, 0, first), Charge(0, 1, Tokens(output=output - output // 2)))


def _settlement(hold: Hold, outcome: Outcome, used: int) -> Settlement:
    return Settlement(outcome, _charges(hold, used) if outcome in CHARGED else ())


async def _together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T | BaseException]:
    return await asyncio.gather(*work, return_exceptions=True)


@pytest.fixture
def world(store_url):
    with asyncio.Runner() as runner:
        database = Database.open(store_url)
        world = World(runner, database, runner.run(Shop.open(database)))
        yield world
        runner.run(database.close())


async def prove(database: Database) -> None:
    async with database.read() as connection:
        found = await reconcile(connection)
    assert [item for item in found.differences if item.what != "journal"] == []


def test_all_invariants_hold_for_thousands_of_random_steps(world):
    class OnThisStore(Machine):
        def __init__(self) -> None:
            super().__init__(world)

    run_state_machine_as_test(
        OnThisStore,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            derandomize=True,
            # A failure is told at once: to make it smaller takes longer than a test may.
            phases=[Phase.generate],
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert world.steps >= LEAST_STEPS
    world.run(prove(world.database))
    # The random walk went everywhere.
    assert {"Hold", "BudgetExhausted", "RateLimited"} <= set(world.outcomes)
