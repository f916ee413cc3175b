"""What is set in the directory, as the ledger acts on it: on both stores, at the next hold."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from sqlalchemy import select

from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.hold import HoldRequest, Outcome, Scope, Settlement
from serve_app.accounting.ledger import Ledger
from serve_app.accounting.price_book import PriceBook
from serve_app.accounting.principal import Principal
from serve_app.accounting.schema import alerts, lines
from serve_app.accounting.tokens import Tokens
from serve_app.config import Accounting, parse_config
from serve_app.errors import BudgetExhausted, Unauthorized
from tests.serve_app.accounting.shop import charge
from tests.serve_app.accounting.watch import Watch

PEPPER = bytes(range(32))
MODEL = parse_config({"model": {"path": "/m", "name": "pixtral-large"}}).model
COST = 10 * 2_000 + 5 * 6_000  # of what ``use`` uses


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def directory(database: Database, watch: Watch) -> Directory:
    made = Directory(database, PEPPER, clock=watch)
    await made.ensure_default()
    return made


@pytest.fixture
async def prices(database: Database, watch: Watch) -> AsyncIterator[PriceBook]:
    book = PriceBook(database, clock=watch)
    await book.start(MODEL)
    yield book
    await book.close()


@pytest.fixture
async def ledger(database: Database, watch: Watch) -> AsyncIterator[Ledger]:
    opened = Ledger(database, Accounting(), owner="gateway", clock=watch)
    await opened.start()
    yield opened
    await opened.close()


class Caller:
    """Uses 10 tokens in and 5 out, by any key."""

    def __init__(self, ledger: Ledger, prices: PriceBook) -> None:
        self._ledger = ledger
        self._prices = prices
        self._ids = count()

    async def use(self, principal: Principal) -> None:
        sheet = self._prices.current(MODEL.name)
        request = HoldRequest(
            f"request-{next(self._ids)}", principal.payer, sheet, Tokens(text=10), 5
        )
        hold = await self._ledger.hold(request)
        await self._ledger.settle(hold, Settlement(Outcome.COMPLETED, (charge(text=10, output=5),)))


@pytest.fixture
def caller(ledger: Ledger, prices: PriceBook) -> Caller:
    return Caller(ledger, prices)


async def test_both_keys_of_a_rotation_bill_the_same_team(directory, database, caller):
    old = await directory.create_key("default", "ci", actor="me")
    new = await directory.rotate_key(old.public_id, 60, actor="me")
    for key in (old, new):
        await caller.use(await directory.principal(key.secret))
    async with database.read() as connection:
        rows = list(await connection.execute(select(lines)))
    assert {row.account_id for row in rows} == {(await directory.team("default")).id}
    assert {row.key_id for row in rows} == {old.info.id, new.info.id}
    assert sum(row.nano_usd for row in rows) == 2 * COST


async def test_a_hold_is_refused_at_once_where_a_revoked_key_is_still_remembered(directory, caller):
    key = await directory.create_key("default", "ci", actor="me")
    principal = await directory.principal(key.secret)
    await caller.use(principal)
    await directory.revoke_key(key.public_id, actor="me")
    assert await directory.principal(key.secret) == principal
    with pytest.raises(Unauthorized):
        await caller.use(principal)


@pytest.mark.parametrize("scope", [Scope.KEY, Scope.TEAM, Scope.ORGANISATION])
async def test_a_budget_holds_from_the_next_request_on(directory, caller, scope):
    key = await directory.create_key("default", "ci", actor="me")
    principal = await directory.principal(key.secret)
    await caller.use(principal)
    reference = key.public_id if scope is Scope.KEY else "default"
    await directory.change_limits(scope, reference, {"budget_nano_usd": 2 * COST - 1}, actor="me")
    with pytest.raises(BudgetExhausted, match=scope):
        await caller.use(principal)
    await directory.change_limits(scope, reference, {"budget_nano_usd": 2 * COST}, actor="me")
    await caller.use(principal)


async def alerted(database) -> list[tuple[int, int]]:
    async with database.read() as connection:
        rows = await connection.execute(select(alerts).order_by(alerts.c.id))
        return [(row.percent, row.budget_nano_usd) for row in rows]


async def test_a_budget_set_below_what_is_spent_alerts_at_once(directory, database, caller):
    key = await directory.create_key("default", "ci", actor="me")
    await caller.use(await directory.principal(key.secret))
    for changes, due in (
        ({"budget_nano_usd": 2 * COST}, []),
        ({"alert_percents": [40, 50, 60]}, [(40, 2 * COST), (50, 2 * COST)]),
        ({"alert_percents": [40, 50, 60]}, [(40, 2 * COST), (50, 2 * COST)]),
        ({"budget_nano_usd": COST}, [(40, 2 * COST), (50, 2 * COST), (60, COST)]),
        ({"budget_nano_usd": None}, [(40, 2 * COST), (50, 2 * COST), (60, COST)]),
    ):
        await directory.change_limits(Scope.TEAM, "default", changes, actor="me")
        assert await alerted(database) == due


async def test_after_a_budget_was_raised_its_alert_comes_again(directory, database, caller):
    async def percents() -> list[tuple[int, int]]:
        return await alerted(database)

    async def set_budget(nano_usd: int) -> None:
        changes = {"budget_nano_usd": nano_usd, "alert_percents": [50]}
        await directory.change_limits(Scope.TEAM, "default", changes, actor="me")

    key = await directory.create_key("default", "ci", actor="me")
    principal = await directory.principal(key.secret)
    await set_budget(2 * COST)
    await caller.use(principal)
    assert await percents() == [(50, 2 * COST)]
    await set_budget(6 * COST)
    await caller.use(principal)
    assert await percents() == []
    await caller.use(principal)
    assert await percents() == [(50, 6 * COST)]


async def test_the_anonymous_caller_is_billed_to_the_default_team(directory, database, caller):
    await caller.use(await directory.anonymous())
    async with database.read() as connection:
        billed = set((await connection.execute(select(lines.c.account_id))).scalars())
    assert billed == {(await directory.team("default")).id}
