"""Which prices are in force: every version kept, none edited, a change known before it happens.

A new version may take effect ``NOTICE_S`` from now at the earliest, and every gateway reads all
versions each ``REFRESH_S`` and picks by the clock when asked: so all of them change at the same
instant. One that could not read for ``TRUST_S`` no longer says what anything costs; the rest of the
notice is for a slow commit and for clocks that differ.

Only the first sheet of a model holds at once, and from the beginning of time: before it the model
could not be charged for. It comes from the config, as does another version whenever the config's
price is changed. A change made through the API stays until then.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from serve_app.accounting.account_records import lock_account
from serve_app.accounting.audit import Change
from serve_app.accounting.calendar import MICROSECONDS, Clock, now_us
from serve_app.accounting.database import Database
from serve_app.accounting.money import usd_per_million
from serve_app.accounting.prices import PriceSheet, listed_price
from serve_app.accounting.schema import REVENUE_ACCOUNT, price_versions
from serve_app.config import Model
from serve_app.errors import Conflict, InvalidRequest, LedgerUnavailable, NotFound

NOTICE_S = 60
TRUST_S = 30
REFRESH_S = 2.0
STANDARD, BATCH = TIERS = ("standard", "batch")
CONFIG = "config"  # who made the versions that come from the config
_MAX_MODEL_CHARS = 150
_MAX_NANO_USD = 10**12  # a token for $1,000
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prices:
    """Nano-dollars per token of each kind. What is cached costs the list price unless told, and
    never more: nobody pays for what was saved. Versions that are stored may have been refused
    today; ``PriceSheet.most`` holds enough for them.

    Raises:
        InvalidRequest: naming the kind.
    """

    text: int
    output: int
    image: int | None = None
    cached_text: int | None = None
    cached_image: int | None = None

    def __post_init__(self) -> None:
        for kind, price in self.columns().items():
            if isinstance(price, bool) or not isinstance(price, int):
                raise InvalidRequest(f"{kind}: {price!r} is no whole number", param=kind)
            if not 0 <= price <= _MAX_NANO_USD:
                raise InvalidRequest(f"{kind}: {price} is not in 0 to {_MAX_NANO_USD}", param=kind)
        columns = self.columns()
        for kind in ("text", "image"):
            cached, listed = columns[f"cached_{kind}"], columns[kind]
            if cached > listed:
                raise InvalidRequest(
                    f"cached_{kind}: {cached} is above the {listed} of what is not cached",
                    param=f"cached_{kind}",
                )

    def columns(self) -> dict[str, int]:
        image = self.text if self.image is None else self.image
        return {
            "text": self.text,
            "image": image,
            "cached_text": self.text if self.cached_text is None else self.cached_text,
            "cached_image": image if self.cached_image is None else self.cached_image,
            "output": self.output,
        }


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """A sheet, and who set it when."""

    sheet: PriceSheet
    created_us: int
    created_by: str


class PriceBook:
    """One gateway's copy; ``start`` it before asking."""

    def __init__(self, database: Database, *, clock: Clock = now_us) -> None:
        self._database = database
        self._clock = clock
        self._sheets: tuple[PriceSheet, ...] = ()  # the newest first
        self._read_us = 0
        self._refreshing: asyncio.Task[None] | None = None

    async def start(self, model: Model) -> None:
        """See that the served model has a price, read all, and keep reading.

        Raises:
            LedgerUnavailable
        """
        await self._follow_config(model)
        await self.refresh()
        self._refreshing = asyncio.create_task(self._keep_fresh())

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            with suppress(asyncio.CancelledError):
                await self._refreshing

    def current(self, model: str, tier: str = STANDARD) -> PriceSheet:
        """What is in force at this moment; a tier without a sheet of its own is ``standard``.

        Raises:
            LedgerUnavailable: the prices could not be read lately.
            NotFound: there is none for the model.
        """
        now = self._clock()
        if abs(now - self._read_us) > TRUST_S * MICROSECONDS:
            raise LedgerUnavailable("the prices could not be read lately; nothing was begun")
        for wanted in (tier, STANDARD):
            for sheet in self._sheets:
                if (sheet.model, sheet.tier) == (model, wanted) and sheet.effective_us <= now:
                    return sheet
        raise NotFound(f"there is no price for {model!r}", param="model")

    async def refresh(self) -> None:
        """Read all versions now. Raises LedgerUnavailable."""
        begun_us = self._clock()
        self._sheets = tuple(version.sheet for version in await self.versions())
        self._read_us = begun_us

    async def versions(self, model: str | None = None) -> tuple[PriceVersion, ...]:
        """Past, present and to come, the last to take effect first."""
        columns = price_versions.c
        query = select(price_versions).order_by(columns.effective_us.desc(), columns.id.desc())
        if model is not None:
            query = query.where(columns.model == model)
        async with self._database.read() as connection:
            return tuple(_version(row._asdict()) for row in await connection.execute(query))

    async def add(
        self, model: str, prices: Prices, effective_us: int, *, tier: str = STANDARD, actor: str
    ) -> PriceSheet:
        """A version that holds from ``effective_us`` until the next of its model and tier.

        It can never be edited; one that was a mistake is corrected by another. It never touches
        a request that was admitted before.

        Raises:
            InvalidRequest: naming the field; too soon to be known everywhere in time.
            Conflict: there is one for that instant.
        """
        _check_name(model)
        if tier not in TIERS:
            raise InvalidRequest(f"tier: {tier[:40]!r} is none of {', '.join(TIERS)}", param="tier")
        async with self._database.write() as connection:
            change = Change(connection, actor, self._clock())
            if effective_us < change.at_us + NOTICE_S * MICROSECONDS:
                raise InvalidRequest(
                    f"effective_us: must lie {NOTICE_S} s ahead or more, so that every gateway "
                    "knows it in time",
                    param="effective_us",
                )
            return await _insert(change, model, tier, prices, effective_us)

    async def _follow_config(self, model: Model) -> None:
        _check_name(model.name)
        listed = listed_price(model)
        prices = Prices(
            text=listed.price.input_nano_usd_per_token,
            output=listed.price.output_nano_usd_per_token,
        )
        query = (
            select(price_versions)
            .where(
                price_versions.c.model == model.name,
                price_versions.c.tier == STANDARD,
                price_versions.c.created_by == CONFIG,
            )
            .order_by(price_versions.c.effective_us.desc())
            .limit(1)
        )
        async with self._database.write() as connection:
            change = Change(connection, CONFIG, self._clock())
            # Gateways that start together do so one after another.
            await lock_account(connection, REVENUE_ACCOUNT)
            latest = (await connection.execute(query)).mappings().one_or_none()
            if latest is None:
                await _insert(change, model.name, STANDARD, prices, effective_us=0)
            elif any(latest[kind] != price for kind, price in prices.columns().items()):
                from_us = change.at_us + NOTICE_S * MICROSECONDS
                sheet = await _insert(change, model.name, STANDARD, prices, from_us)
                _logger.warning(
                    "the config's price of %s is new: $%s in and $%s out per million tokens, "
                    "in force in %d s",
                    model.name,
                    usd_per_million(sheet.text),
                    usd_per_million(sheet.output),
                    NOTICE_S,
                )

    async def _keep_fresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except LedgerUnavailable as error:
                _logger.warning("the prices cannot be read: %s", error)


def _check_name(model: str) -> None:
    if not 1 <= len(model) <= _MAX_MODEL_CHARS or not model.isprintable():
        raise InvalidRequest(f"model: 1 to {_MAX_MODEL_CHARS} printable characters", param="model")


async def _insert(
    change: Change, model: str, tier: str, prices: Prices, effective_us: int
) -> PriceSheet:
    statement = insert(price_versions).values(
        model=model,
        tier=tier,
        effective_us=effective_us,
        created_us=change.at_us,
        created_by=change.actor,
        **prices.columns(),
    )
    try:
        async with change.connection.begin_nested():
            inserted = await change.connection.execute(statement.returning(price_versions))
    except IntegrityError as error:
        raise Conflict(
            "there is a price for that instant already; choose a later one", param="effective_us"
        ) from error
    detail = {"tier": tier, "effective_us": effective_us, "nano_usd_per_token": prices.columns()}
    await change.record("price.add", f"model {model}", detail)
    return _version(inserted.one()._asdict()).sheet


def _version(row: dict[str, Any]) -> PriceVersion:
    created_us, created_by = row.pop("created_us"), row.pop("created_by")
    return PriceVersion(PriceSheet(**row), created_us, created_by)
