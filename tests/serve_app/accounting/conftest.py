"""A shop and a ledger on either store."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from serve_app.accounting.database import Database
from serve_app.accounting.ledger import Ledger
from serve_app.accounting.reconcile import reconcile
from tests.serve_app.accounting.shop import Shop


@pytest.fixture
async def shop(database: Database) -> AsyncIterator[Shop]:
    """Every test leaves accounts that prove themselves."""
    shop = await Shop.open(database)
    yield shop
    async with database.read() as connection:
        found = await reconcile(connection)
    assert [item for item in found.differences if item.what != "journal"] == []


@pytest.fixture
async def ledger(shop: Shop) -> AsyncIterator[Ledger]:
    async with shop.ledger() as ledger:
        yield ledger
