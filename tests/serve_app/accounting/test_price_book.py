"""Price versions, on both stores: never edited, never retroactive, known before they hold."""

import asyncio

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import DBAPIError

from serve_app.accounting import audit
from serve_app.accounting.database import Database
from serve_app.accounting.price_book import (
    BATCH,
    NOTICE_S,
    TRUST_S,
    PriceBook,
    Prices,
)
from serve_app.accounting.schema import price_versions
from serve_app.accounting.tokens import Tokens
from serve_app.config import Model, parse_config
from serve_app.errors import Conflict, InvalidRequest, LedgerUnavailable, NotFound
from tests.serve_app.accounting.watch import SECOND_US, START_US, Watch

LARGE = "pixtral-large"
NOTICE_US = NOTICE_S * SECOND_US


def served(name: str = LARGE, **fields: object) -> Model:
    return parse_config({"model": {"path": "/models/x", "name": name, **fields}}).model


def priced(text: int, output: int) -> Model:
    return served(price={"input_nano_usd_per_token": text, "output_nano_usd_per_token": output})


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
async def book(database: Database, watch: Watch):
    opened = PriceBook(database, clock=watch)
    await opened.start(served())
    yield opened
    await opened.close()


async def test_the_first_sheet_is_the_list_price_for_every_kind_and_from_the_beginning(book):
    sheet = book.current(LARGE)
    assert (sheet.text, sheet.image, sheet.output) == (2_000, 2_000, 6_000)
    assert (sheet.cached_text, sheet.cached_image) == (2_000, 2_000)
    assert sheet.cost(Tokens(1, 1, 1, 1, 1)) == 14_000
    assert sheet.effective_us == 0
    [version] = await book.versions()
    assert (version.sheet, version.created_by) == (sheet, "config")
    assert version.created_us == START_US


async def test_gateways_that_start_at_once_agree_on_one_first_sheet(database, watch):
    books = [PriceBook(database, clock=watch) for _ in range(4)]
    await asyncio.gather(*(book.start(served()) for book in books))
    assert len({book.current(LARGE).id for book in books}) == 1
    assert len(await books[0].versions()) == 1
    for book in books:
        await book.close()


async def test_a_new_price_holds_from_its_instant_on_every_gateway(database, book, watch):
    other = PriceBook(database, clock=watch)
    await other.start(served())
    effective_us = watch() + NOTICE_US
    added = await book.add(LARGE, Prices(text=1, output=3), effective_us, actor="me")
    for each in (book, other):
        await each.refresh()
    watch.now = effective_us - 1
    for each in (book, other):
        await each.refresh()
        assert each.current(LARGE).text == 2_000
    watch.now = effective_us
    assert book.current(LARGE) == other.current(LARGE) == added
    assert (added.image, added.cached_text, added.cached_image) == (1, 1, 1)
    await other.close()


async def test_the_background_reads_what_another_gateway_added(
    database, book, watch, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serve_app.accounting.price_book.REFRESH_S", 0.01)
    other = PriceBook(database, clock=watch)
    await other.start(served())
    added = await book.add(LARGE, Prices(1, 3), watch() + NOTICE_US, actor="me")
    watch.turn(NOTICE_S)
    async with asyncio.timeout(20):
        while True:
            try:
                if other.current(LARGE) == added:
                    break
            except LedgerUnavailable:
                pass  # until it has read again, after so long
            await asyncio.sleep(0.01)
    await other.close()


async def test_who_could_not_read_in_time_says_no_price_rather_than_an_old_one(book, watch):
    watch.turn(TRUST_S)
    assert book.current(LARGE).text == 2_000
    watch.turn(0.000_001)
    with pytest.raises(LedgerUnavailable):
        book.current(LARGE)
    await book.refresh()
    assert book.current(LARGE).text == 2_000


def test_the_notice_outlasts_what_is_still_trusted():
    assert TRUST_S < NOTICE_S


async def test_a_price_is_never_retroactive_nor_at_short_notice(book, watch):
    for effective_us in (0, watch() - 1, watch(), watch() + NOTICE_US - 1):
        with pytest.raises(InvalidRequest) as caught:
            await book.add(LARGE, Prices(1, 1), effective_us, actor="me")
        assert caught.value.param == "effective_us"
    assert len(await book.versions()) == 1


async def test_a_version_is_never_edited_nor_deleted(book, database):
    for statement in (update(price_versions).values(text=0), delete(price_versions)):
        with pytest.raises(DBAPIError):
            async with database.write() as connection:
                await connection.execute(statement)
    assert (await book.versions())[0].sheet.text == 2_000


async def test_two_prices_for_one_instant_are_refused(book, watch, database):
    at_us = watch() + NOTICE_US
    await book.add(LARGE, Prices(1, 1), at_us, actor="me")
    with pytest.raises(Conflict):
        await book.add(LARGE, Prices(2, 2), at_us, actor="me")
    await book.add(LARGE, Prices(2, 2), at_us, tier=BATCH, actor="me")
    assert len(await book.versions()) == 3
    assert [entry.actor for entry in await audit.entries(database)] == ["me", "me", "config"]


async def test_the_batch_tier_costs_the_standard_price_until_it_has_its_own(book, watch):
    assert book.current(LARGE, BATCH) == book.current(LARGE)
    at_us = watch() + NOTICE_US
    half = await book.add(LARGE, Prices(1_000, 3_000), at_us, tier=BATCH, actor="me")
    watch.now = at_us
    await book.refresh()
    assert book.current(LARGE, BATCH) == half
    assert book.current(LARGE).text == 2_000


async def test_cached_tokens_may_have_their_own_price(book, watch):
    prices = Prices(text=10, output=30, image=20, cached_text=1, cached_image=2)
    sheet = await book.add(LARGE, prices, watch() + NOTICE_US, actor="me")
    assert sheet.cost(Tokens(text=1, image=1, cached_text=1, cached_image=1, output=1)) == 63
    assert Prices(text=10, output=1, image=20).columns()["cached_image"] == 20


async def test_a_changed_config_price_becomes_a_version_of_the_near_future(
    database, watch, caplog: pytest.LogCaptureFixture
):
    for model in (served(), priced(5, 7), priced(5, 7)):
        books = [PriceBook(database, clock=watch) for _ in range(2)]
        await asyncio.gather(*(book.start(model) for book in books))
        assert books[0].current(LARGE).text == 2_000
        for book in books:
            await book.close()
    first, second = reversed(await books[0].versions())
    assert (first.sheet.text, second.sheet.text, second.sheet.output) == (2_000, 5, 7)
    assert second.sheet.effective_us == watch() + NOTICE_US
    assert "$0.005 in and $0.007 out" in caplog.text
    watch.turn(NOTICE_S)
    await books[0].refresh()
    assert books[0].current(LARGE) == second.sheet


async def test_a_restart_leaves_a_price_alone_that_was_set_through_the_api(database, book, watch):
    added = await book.add(LARGE, Prices(1, 3), watch() + NOTICE_US, actor="me")
    watch.turn(NOTICE_S + 1)
    again = PriceBook(database, clock=watch)
    await again.start(served())
    assert len(await again.versions()) == 2
    watch.turn(NOTICE_S + 1)
    await again.refresh()
    assert again.current(LARGE) == added
    await again.close()


async def test_a_model_without_a_price_is_not_found(book):
    with pytest.raises(NotFound):
        book.current("another")


@pytest.mark.parametrize(
    ("kind", "prices"),
    [
        ("text", {"text": -1, "output": 1}),
        ("output", {"text": 1, "output": 1.5}),
        ("image", {"text": 1, "output": 1, "image": True}),
        ("cached_text", {"text": 1, "output": 1, "cached_text": 10**12 + 1}),
        ("cached_text", {"text": 1, "output": 1, "cached_text": 2}),
        ("cached_image", {"text": 5, "output": 1, "image": 1, "cached_image": 2}),
    ],
)
def test_a_bad_price_is_refused_by_name(kind, prices):
    with pytest.raises(InvalidRequest) as caught:
        Prices(**prices)
    assert caught.value.param == kind


@pytest.mark.parametrize(
    ("field", "model", "tier"),
    [("model", "", "standard"), ("model", "a" * 151, "standard"), ("tier", LARGE, "gold")],
)
async def test_a_price_of_nothing_is_refused_by_name(book, watch, field, model, tier):
    with pytest.raises(InvalidRequest) as caught:
        await book.add(model, Prices(1, 1), watch() + NOTICE_US, tier=tier, actor="me")
    assert caught.value.param == field


async def test_every_price_is_audited(book, database, watch):
    await book.add(LARGE, Prices(1, 3), watch() + NOTICE_US, actor="alice")
    entry = (await audit.entries(database))[0]
    assert (entry.actor, entry.action, entry.subject) == ("alice", "price.add", f"model {LARGE}")
    assert entry.detail["nano_usd_per_token"]["output"] == 3
