"""Budget alerts against a webhook on loopback, on both stores."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from sqlalchemy import insert, select, update

from serve_app.accounting.alerts import FIRST_PAUSE_S, MAX_ATTEMPTS, AlertSender
from serve_app.accounting.calendar import month_of
from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.hold import Scope
from serve_app.accounting.schema import alerts, balances
from tests.serve_app.accounting.watch import START_US, Watch

PEPPER = bytes(range(32))


class Hook:
    """A receiver that answers ``status`` (a redirect leads back to itself)."""

    def __init__(self) -> None:
        self.status = 200
        self.delay_s = 0.0
        self.received: list[dict[str, Any]] = []
        self.visited: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.visited.append(request.path)
        self.received.append(await request.json())
        await asyncio.sleep(self.delay_s)
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def hook() -> Hook:
    return Hook()


@pytest.fixture
async def host(hook: Hook) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", hook.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def directory(database: Database, host: str, watch: Watch) -> Directory:
    made = Directory(database, PEPPER, alert_hosts=[host], clock=watch)
    await made.ensure_default()
    change = {"budget_nano_usd": 10**9, "alert_url": f"http://{host}/the-canary-path"}
    await made.change_limits(Scope.ORGANISATION, "default", change, actor="me")
    return made


@pytest.fixture
async def sender(database: Database, host: str, watch: Watch) -> AsyncIterator[AlertSender]:
    opened = AlertSender(database, [host], clock=watch, timeout_s=2)
    yield opened
    await opened.close()


async def cross(database: Database, account_id: int, percent: int = 80) -> None:
    """As settling.py notes it."""
    row = {
        "account_id": account_id,
        "month": month_of(START_US),
        "percent": percent,
        "posted_nano_usd": 800_000_001,
        "budget_nano_usd": 10**9,
        "created_us": START_US,
        "next_attempt_us": START_US,
    }
    async with database.write() as connection:
        await connection.execute(insert(alerts).values(row))


async def stored(database: Database) -> dict[str, Any]:
    async with database.read() as connection:
        return dict((await connection.execute(select(alerts))).mappings().one())


async def test_an_alert_says_who_and_how_much_and_is_sent_once(
    database, directory, sender, hook, watch
):
    team = await directory.team("default")
    await cross(database, team.id)
    assert await sender.deliver() == 1
    assert hook.received == [
        {
            "type": "budget_alert",
            "id": (await stored(database))["id"],
            "scope": "team",
            "organisation": "default",
            "team": "default",
            "key": None,
            "month": "2027-01",
            "percent": 80,
            "posted_usd": "0.800000001",
            "budget_usd": "1",
            "crossed_at": "2027-01-15T08:00:00Z",
        }
    ]
    assert (await stored(database))["delivered_us"] == watch()
    watch.turn(10**6)
    assert await sender.deliver() == 0
    assert len(hook.received) == 1


@pytest.mark.parametrize("scope", ["organisation", "team", "key"])
async def test_an_alert_goes_to_the_nearest_address(database, directory, sender, hook, host, scope):
    key = await directory.create_key("default", "ci", actor="me")
    for each, name in ((Scope.TEAM, "default"), (Scope.KEY, key.public_id)):
        change = {"alert_url": f"http://{host}/{each}"}
        if scope != "organisation" and (each, scope) != (Scope.KEY, "team"):
            await directory.change_limits(each, name, change, actor="me")
    await cross(database, key.info.id)
    await sender.deliver()
    expected = {"organisation": "/the-canary-path", "team": "/team", "key": "/key"}
    assert hook.visited == [expected[scope]]
    assert hook.received[0]["key"] == "ci"


async def test_two_gateways_do_not_post_the_same_alert(
    database, directory, sender, hook, host, watch
):
    hook.delay_s = 0.1
    await cross(database, (await directory.team("default")).id)
    other = AlertSender(database, [host], clock=watch)
    delivered = await asyncio.gather(sender.deliver(), other.deliver(), other.deliver())
    await other.close()
    assert sum(delivered) == 1
    assert len(hook.received) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 404, 500])
async def test_a_failure_is_tried_again_with_growing_pauses_and_then_given_up(
    database, directory, sender, hook, watch, status, caplog
):
    hook.status = status
    await cross(database, (await directory.team("default")).id)
    pauses = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        assert await sender.deliver() == 0
        row = await stored(database)
        assert (row["attempts"], row["delivered_us"]) == (attempt, None)
        pauses.append((row["next_attempt_us"] - watch()) // 10**6)
        watch.now = row["next_attempt_us"] - 1
        await sender.deliver()
        assert len(hook.received) == attempt
        watch.now += 1
    assert pauses[:4] == [FIRST_PAUSE_S * 2**n for n in range(4)]
    assert pauses == sorted(pauses)
    assert (await stored(database))["given_up_us"] is not None
    await sender.deliver()
    assert len(hook.received) == MAX_ATTEMPTS
    assert "/elsewhere" not in hook.visited
    assert "the-canary-path" not in caplog.text
    assert f"answered {status}" in caplog.text


async def test_a_receiver_that_is_back_gets_it(database, directory, sender, hook, watch):
    hook.status = 503
    await cross(database, (await directory.team("default")).id)
    assert await sender.deliver() == 0
    hook.status = 204
    watch.turn(FIRST_PAUSE_S)
    assert await sender.deliver() == 1
    assert [body["id"] for body in hook.received] == [(await stored(database))["id"]] * 2


async def test_a_receiver_that_does_not_answer_holds_nothing_up(
    database, directory, hook, host, watch, caplog
):
    hook.delay_s = 30
    await cross(database, (await directory.team("default")).id)
    impatient = AlertSender(database, [host], clock=watch, timeout_s=0.05)
    async with asyncio.timeout(10):
        assert await impatient.deliver() == 0
    await impatient.close()
    assert "did not answer" in caplog.text
    assert (await stored(database))["given_up_us"] is None


async def test_a_gateway_that_dies_while_posting_only_delays_an_alert(
    database, directory, sender, hook, watch
):
    hook.delay_s = 30
    await cross(database, (await directory.team("default")).id)
    posting = asyncio.create_task(sender.deliver())
    while not hook.received:
        await asyncio.sleep(0.01)
    posting.cancel()
    hook.delay_s = 0
    assert await sender.deliver() == 0
    watch.turn(FIRST_PAUSE_S)
    assert await sender.deliver() == 1


async def test_a_host_that_is_no_longer_listed_is_not_posted_to(
    database, directory, hook, watch, caplog
):
    await cross(database, (await directory.team("default")).id)
    strict = AlertSender(database, ["hooks.example.com"], clock=watch)
    assert await strict.deliver() == 0
    await strict.close()
    assert hook.received == []
    assert "accounting.alert_hosts" in caplog.text
    assert "the-canary-path" not in caplog.text


async def test_an_alert_that_nobody_is_to_be_told_of_is_given_up(
    database, directory, sender, watch
):
    change = {"alert_url": None}
    await directory.change_limits(Scope.ORGANISATION, "default", change, actor="me")
    await cross(database, (await directory.team("default")).id)
    assert await sender.deliver() == 0
    assert (await stored(database))["given_up_us"] == watch()


async def test_a_raised_budget_lets_an_alert_come_again(database, directory, watch):
    team = await directory.team("default")
    posted = {"account_id": team.id, "month": month_of(START_US), "posted_nano_usd": 800_000_001}
    async with database.write() as connection:
        await connection.execute(insert(balances).values(posted))
    for percent in (50, 80):
        await cross(database, team.id, percent)

    async def percents() -> list[int]:
        async with database.read() as connection:
            query = select(alerts.c.percent).order_by(alerts.c.percent)
            return list((await connection.execute(query)).scalars())

    async def set_budget(nano_usd: int | None) -> None:
        change = {"budget_nano_usd": nano_usd}
        await directory.change_limits(Scope.TEAM, "default", change, actor="me")

    await set_budget(None)
    assert await percents() == [50, 80]
    await set_budget(1_000_000_001)  # 80 % of it is reached still
    assert await percents() == [50, 80]
    await set_budget(1_000_000_002)  # not any more
    assert await percents() == [50]
    await set_budget(10**18)
    assert await percents() == []


async def test_last_months_alerts_are_left_alone_by_a_raised_budget(database, directory, watch):
    team = await directory.team("default")
    await cross(database, team.id)
    async with database.write() as connection:
        await connection.execute(update(alerts).values(month="2026-12"))
    change = {"budget_nano_usd": 10**18}
    await directory.change_limits(Scope.TEAM, "default", change, actor="me")
    assert (await stored(database))["month"] == "2026-12"
