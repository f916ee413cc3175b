from collections.abc import Callable

import pytest

from serve_app.accounting.calendar import MICROSECONDS
from serve_app.accounting.database import Database
from serve_app.accounting.lease import Lease


class Clock:
    def __init__(self) -> None:
        self.at_us = 1_000 * MICROSECONDS

    def __call__(self) -> int:
        return self.at_us

    def turn(self, seconds: float) -> None:
        self.at_us += round(seconds * MICROSECONDS)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lease_of(database: Database, clock: Clock) -> Callable[[str], Lease]:
    return lambda owner: Lease(database, "chores", owner, lease_s=6, clock=clock)


async def test_one_gateway_at_a_time_has_it(lease_of, clock):
    first, second = lease_of("first"), lease_of("second")
    assert await first.take()
    assert not await second.take()
    clock.turn(5.9)
    assert await first.take()
    clock.turn(5.9)
    assert not await second.take(), "it had been renewed"


async def test_it_is_free_within_seconds_of_its_holders_death(lease_of, clock):
    assert await lease_of("dead").take()
    clock.turn(6)
    heir = lease_of("heir")
    assert await heir.take()
    assert not await lease_of("late").take()


async def test_a_holder_that_slept_too_long_learns_that_it_lost_it(lease_of, clock):
    sleeper, heir = lease_of("sleeper"), lease_of("heir")
    assert await sleeper.take()
    clock.turn(7)
    assert await heir.take()
    assert not await sleeper.take()


async def test_given_back_it_is_free_at_once(lease_of):
    first, second = lease_of("first"), lease_of("second")
    assert await first.take()
    await second.give_back()
    assert not await second.take(), "nobody gives back what another has"
    await first.give_back()
    assert await second.take()
    assert not await first.take()


async def test_it_is_renewed_only_in_its_second_half(lease_of, clock, database, monkeypatch):
    lease = lease_of("owner")
    assert await lease.take()
    monkeypatch.setattr(database, "write", lambda: pytest.fail("renewed too early"))
    clock.turn(2.9)
    assert await lease.take()
