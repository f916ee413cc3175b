"""The accounts as one gateway uses them: everything over one database, opened and closed in order.

prepare(config, token)          once, before any gateway: schema, pepper, first key
async with Office(config, engines, owner=…) as office:
    office.directory            who calls
    office.prices               what a token costs
    office.ledger               holds and settlements
    office.replays              answers of keyed requests
(and, unseen: the sweeper with its chores)
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from contextvars import Context
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from serve_app.accounting.alerts import AlertSender
from serve_app.accounting.calendar import Clock, now_us
from serve_app.accounting.database import Database, migrate, require_current
from serve_app.accounting.directory import Directory
from serve_app.accounting.keys import ensure_pepper, read_pepper
from serve_app.accounting.ledger import Ledger
from serve_app.accounting.meter import Meter
from serve_app.accounting.price_book import PriceBook
from serve_app.accounting.replays import Replays
from serve_app.accounting.roles import Role
from serve_app.accounting.sweeper import Engines, Sweeper
from serve_app.config import Accounting, Config, ConfigError
from serve_app.errors import LedgerUnavailable

BOOTSTRAP_KEY = "bootstrap"
# A load balancer waits no longer for its answer.
REACH_S = 2.0


def prepare(config: Config, token: str) -> None:
    """Make the accounts usable: pepper, schema, default team, and ``token`` as an admin's key.

    Idempotent. Not for use inside a running event loop.

    Raises:
        ConfigError, LedgerUnavailable, Conflict: the key was revoked.
    """
    settings = config.accounting
    pepper = ensure_pepper(_pepper_file(settings))
    migrate(_url(settings), _password(settings))
    asyncio.run(_import(settings, pepper, token))


async def _import(settings: Accounting, pepper: bytes, token: str) -> None:
    database = _open(settings)
    try:
        directory = Directory(database, pepper)
        team = await directory.ensure_default()
        await directory.import_key(token, team=team.name, name=BOOTSTRAP_KEY, role=Role.ADMIN)
    finally:
        await database.close()


def reach(config: Config) -> None:
    """See that the database answers. Not for use inside a running event loop.

    Raises:
        ConfigError, LedgerUnavailable
    """
    asyncio.run(_reach(config.accounting))


async def _reach(settings: Accounting) -> None:
    database = _open(settings)
    try:
        async with database.read() as connection:
            await connection.execute(select(1))
    finally:
        await database.close()


def database_time(config: Config) -> float:
    """Unix time by the clock of a PostgreSQL database. Not for use inside a running event loop.

    Raises:
        ConfigError, LedgerUnavailable
    """
    return asyncio.run(_database_time(config.accounting))


async def _database_time(settings: Accounting) -> float:
    database = _open(settings)
    try:
        async with database.read() as connection:
            clock = text("SELECT extract(epoch FROM clock_timestamp())")
            return float((await connection.execute(clock)).scalar_one())
    finally:
        await database.close()


class Office:
    """To be entered inside the event loop; what it holds can be referred to before.

    Args:
        engines: the tiers, whose journals the sweeper reads.
        owner: tells gateway processes apart; never used twice.
        meter: told what the ledger and the sweeper do.

    Raises:
        ConfigError: a setting is missing or unfit; entering: the schema is not this version's.
    """

    def __init__(
        self,
        config: Config,
        engines: Engines,
        *,
        owner: str,
        clock: Clock = now_us,
        meter: Meter | None = None,
    ) -> None:
        settings = config.accounting
        pepper = read_pepper(_pepper_file(settings))
        self.database = _open(settings)
        self.directory = Directory(
            self.database, pepper, alert_hosts=settings.alert_hosts, clock=clock
        )
        self.prices = PriceBook(self.database, clock=clock)
        self.ledger = Ledger(self.database, settings, owner=owner, clock=clock, meter=meter)
        self.replays = Replays(self.database, pepper, settings, clock=clock)
        self._alerts = AlertSender(self.database, settings.alert_hosts, clock=clock)
        self._sweeper = Sweeper(
            self.database,
            engines,
            settings,
            owner=owner,
            chores=(self.replays.remove_expired, self._alerts.deliver),
            clock=clock,
            meter=meter,
        )
        self._model = config.model
        self._closing = AsyncExitStack()

    async def __aenter__(self) -> Office:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.database.close)
            await require_current(self.database)
            await self.prices.start(self._model)
            stack.push_async_callback(self.prices.close)
            await self.ledger.start()
            stack.push_async_callback(self.ledger.close)
            stack.push_async_callback(self._alerts.close)
            for chore in (self._sweeper.run(), self.replays.keep_alive()):
                stack.push_async_callback(self._ended, _begun(chore))
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._closing.aclose()

    async def reachable(self) -> bool:
        """Whether the database answers within ``REACH_S``."""
        try:
            async with asyncio.timeout(REACH_S), self.database.read() as connection:
                await connection.execute(select(1))
        except (LedgerUnavailable, TimeoutError):
            return False
        return True

    async def _ended(self, chore: asyncio.Task[None]) -> None:
        # SQLite has one writer: while it is ours, no chore is cancelled inside a transaction, whose
        # lock a next gateway would have to wait for.
        with suppress(LedgerUnavailable):
            async with self.database.write():
                chore.cancel()
        chore.cancel()
        with suppress(asyncio.CancelledError):
            await chore


def _begun(chore: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """In a context of its own: no request's end is to reach it."""
    return asyncio.get_running_loop().create_task(chore, context=Context())


def _open(settings: Accounting) -> Database:
    return Database.open(
        _url(settings), password=_password(settings), timeout_s=settings.hold_timeout_s
    )


def _url(settings: Accounting) -> str:
    if not settings.database_url:
        raise ConfigError("accounting.database_url: names no database")
    return settings.database_url


def _pepper_file(settings: Accounting) -> Path:
    if settings.pepper_file is None:
        raise ConfigError("accounting.pepper_file: names no file")
    return settings.pepper_file


def _password(settings: Accounting) -> str | None:
    file = settings.database_password_file
    if file is None:
        return None
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"accounting.database_password_file: {file}: {error.strerror}") from error
