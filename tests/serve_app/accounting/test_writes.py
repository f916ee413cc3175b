"""What a transaction writes, on both stores: the same rows, however they are sent."""

from __future__ import annotations

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import IntegrityError

from serve_app.accounting.hold import Outcome, Settlement
from serve_app.accounting.schema import REVENUE_ACCOUNT, WASTE_ACCOUNT, balances
from serve_app.accounting.writes import Mode, Write, Writes
from tests.serve_app.accounting.shop import charge

KEY = ("account_id", "month")
INSERT = Write(Mode.INSERT, balances, KEY, ("posted_nano_usd",))
IGNORE = Write(Mode.IGNORE, balances, KEY, ("posted_nano_usd",))
REPLACE = Write(Mode.REPLACE, balances, KEY, ("posted_nano_usd", "held_nano_usd"))
ADD = Write(Mode.ADD, balances, KEY, ("posted_nano_usd",))
UPDATE = Write(Mode.UPDATE, balances, KEY, ("held_nano_usd",))
# Beyond what a float holds exactly.
LARGE = 2**60 + 1


def row(account_id, month="2026-03", **amounts):
    return {
        "account_id": account_id,
        "month": month,
        **{f"{name}_nano_usd": amount for name, amount in amounts.items()},
    }


async def sent(database, *written):
    writes = Writes()
    for write, *rows in written:
        writes.add(write, rows)
    async with database.write() as connection:
        await writes.send(connection)


async def found(database):
    async with database.read() as connection:
        rows = await connection.execute(select(balances))
        return {(id, month): (posted, held) for id, month, posted, held in rows}


async def test_all_kinds_of_write_go_together(database):
    await sent(
        database,
        (INSERT, *(row(WASTE_ACCOUNT, month, posted=LARGE) for month in ("2026-01", "2026-02"))),
        (IGNORE, row(REVENUE_ACCOUNT, posted=5)),
    )
    await sent(
        database,
        (IGNORE, row(REVENUE_ACCOUNT, posted=6)),
        (ADD, row(WASTE_ACCOUNT, "2026-01", posted=1), row(WASTE_ACCOUNT, "2026-03", posted=2)),
        (UPDATE, row(WASTE_ACCOUNT, "2026-02", held=3), row(WASTE_ACCOUNT, "1999-01", held=3)),
        (REPLACE, row(REVENUE_ACCOUNT, "2026-04", posted=7, held=8)),
    )
    assert await found(database) == {
        (WASTE_ACCOUNT, "2026-01"): (LARGE + 1, 0),
        (WASTE_ACCOUNT, "2026-02"): (LARGE, 3),
        (WASTE_ACCOUNT, "2026-03"): (2, 0),
        (REVENUE_ACCOUNT, "2026-03"): (5, 0),
        (REVENUE_ACCOUNT, "2026-04"): (7, 8),
    }
    await sent(database, (REPLACE, row(REVENUE_ACCOUNT, "2026-04", posted=1, held=0)))
    assert (await found(database))[REVENUE_ACCOUNT, "2026-04"] == (1, 0)


async def test_one_write_that_cannot_be_takes_the_others_with_it(database):
    await sent(database, (INSERT, row(WASTE_ACCOUNT, posted=1)))
    with pytest.raises(IntegrityError):
        await sent(
            database, (ADD, row(REVENUE_ACCOUNT, posted=1)), (INSERT, row(WASTE_ACCOUNT, posted=2))
        )
    assert await found(database) == {(WASTE_ACCOUNT, "2026-03"): (1, 0)}


async def test_nothing_to_write_is_nothing_sent(database):
    await sent(database, (INSERT,))
    assert await found(database) == {}


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
async def test_a_hold_takes_postgresql_three_statements_and_its_settlement_four(shop, ledger):
    """A round trip is most of what a transaction costs."""
    settlement = Settlement(Outcome.COMPLETED, (charge(text=10, image=5, output=3),))
    await ledger.settle(await ledger.hold(shop.request()), settlement)
    asked: list[str] = []
    engine = shop.database._writer.sync_engine
    event.listen(engine, "before_cursor_execute", lambda *args: asked.append(args[2]))
    hold = await ledger.hold(shop.request())
    assert len(asked) == 3, asked
    asked.clear()
    await ledger.settle(hold, settlement)
    assert len(asked) == 4, asked
