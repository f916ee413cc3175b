"""Exports are exact, typed, harmless in a spreadsheet, and sum to the balances."""

from __future__ import annotations

import csv
import io
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest
from sqlalchemy import func, select

from serve_app.accounting.exports import FileFormat, to_csv, to_parquet, write
from serve_app.accounting.focus import COLUMNS, focus_table
from serve_app.accounting.period import Period
from serve_app.accounting.reports import Query
from serve_app.accounting.schema import balances
from serve_app.accounting.table import Column, Table, Unit
from tests.serve_app.accounting.books import Books

TABLE = Table(
    (Column("name"), Column("tokens", Unit.COUNT), Column("usd", Unit.NANO_USD)),
    (("web", 2**60, 9_007_199_254_740_993), ('ä,"b"\n', -1, -1), ("", None, 0)),
)


def read_csv(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def read_parquet(content):
    return pyarrow.parquet.read_table(io.BytesIO(content))


def test_csv_is_exact():
    assert read_csv(to_csv(TABLE)) == [
        {"name": "web", "tokens": str(2**60), "usd": "9007199.254740993"},
        {"name": 'ä,"b"\n', "tokens": "-1", "usd": "-0.000000001"},
        {"name": "", "tokens": "", "usd": "0"},
    ]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_name_cannot_become_a_formula(start):
    """A team may be called =HYPERLINK(…); amounts below zero stay numbers."""
    name = f"{start}cmd|' /C calc'!A0"
    table = Table((Column("name"), Column("usd", Unit.NANO_USD)), ((name, -1),))
    (row,) = read_csv(to_csv(table))
    assert row == {"name": f"'{name}", "usd": "-0.000000001"}


def test_parquet_is_exact_and_typed():
    table = read_parquet(to_parquet(TABLE))
    assert table.schema.types == [pyarrow.string(), pyarrow.int64(), pyarrow.decimal128(38, 9)]
    assert table.column("tokens").to_pylist() == [2**60, -1, None]
    assert table.column("usd").to_pylist() == [
        Decimal("9007199.254740993"),
        Decimal("-0.000000001"),
        Decimal(0),
    ]
    # Nothing runs there: names are as they are.
    assert table.column("name").to_pylist() == ["web", 'ä,"b"\n', ""]


def test_an_empty_table_keeps_its_columns():
    empty = Table(TABLE.columns, ())
    assert to_csv(empty) == b"name,tokens,usd\r\n"
    assert read_parquet(to_parquet(empty)).schema.names == ["name", "tokens", "usd"]


def test_formats_by_name():
    assert write(TABLE, FileFormat.CSV) == to_csv(TABLE)
    assert write(TABLE, FileFormat.PARQUET)[:4] == b"PAR1"


@pytest.fixture
async def books(database):
    return Books(database)


async def focus(books, period=("2026-10-01", "2026-11-30"), **filters):
    async with books.database.read() as connection:
        return await focus_table(connection, Query(Period(*period), **filters))


async def test_focus_rows_are_priced_usage_and_negative_refunds(books):
    key = await books.key("web")
    await books.request(key, "2026-10-31", text=100)
    await books.request(key, "2026-11-03", text=1, waste={"output": 9})
    await books.request(key, "2026-11-03", text=2)
    await books.refund(1, 400, "2026-11-05", reason="=slow()")
    october, november, refund = (await focus(books)).records()
    assert november == {
        "BilledCost": "0.000006",
        "BillingAccountId": str(key.organisation_id),
        "BillingAccountName": "acme",
        "BillingCurrency": "USD",
        "BillingPeriodEnd": "2026-12-01T00:00:00Z",
        "BillingPeriodStart": "2026-11-01T00:00:00Z",
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": "text tokens of pixtral",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": "2026-11-04T00:00:00Z",
        "ChargePeriodStart": "2026-11-03T00:00:00Z",
        "ConsumedQuantity": 3,
        "ConsumedUnit": "Tokens",
        "ContractedCost": "0.000006",
        "ContractedUnitPrice": "0.000002",
        "EffectiveCost": "0.000006",
        "InvoiceIssuerName": "pixtral-serve",
        "ListCost": "0.000006",
        "ListUnitPrice": "0.000002",
        "PricingCategory": "Standard",
        "PricingQuantity": 3,
        "PricingUnit": "Tokens",
        "ProviderName": "pixtral-serve",
        "PublisherName": "pixtral-serve",
        "ResourceId": "pk_web",
        "ResourceName": "web",
        "ResourceType": "API key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Pixtral inference",
        "SkuId": "pixtral/text",
        "SkuPriceId": "pixtral/text/1",
        "SubAccountId": str(key.team_id),
        "SubAccountName": "search",
    }
    assert october["ChargePeriodStart"] == "2026-10-31T00:00:00Z"
    assert refund["ChargeCategory"] == "Adjustment"
    assert refund["ChargeClass"] == "Correction"
    assert refund["ChargeDescription"] == "refund of line 1: =slow()"
    assert (refund["BilledCost"], refund["ConsumedQuantity"]) == ("-0.0000004", None)
    assert refund["BillingPeriodStart"] == "2026-11-01T00:00:00Z"
    assert set(refund) == {column.name for column in COLUMNS}


async def test_a_refund_in_the_same_billing_period_is_no_correction(books):
    key = await books.key("web")
    await books.request(key, "2026-11-03", text=1)
    await books.refund(1, 1, "2026-11-30")
    (refund,) = (await focus(books, ("2026-11-30", "2026-11-30"))).records()
    assert (refund["ChargeCategory"], refund["ChargeClass"]) == ("Adjustment", None)


async def test_the_rows_of_a_month_sum_to_the_teams_balance(books):
    web, ads = await books.key("web"), await books.key("ads", team="ads")
    for key in (web, ads):
        for day in ("2026-10-31", "2026-11-01", "2026-11-30"):
            await books.request(key, day, text=7, image=11, cached_text=3, output=5)
    await books.refund(2, 1_234, "2026-11-02")
    table = await focus(books)
    billed, team, month = (
        [column.name for column in table.columns].index(name)
        for name in ("BilledCost", "SubAccountId", "BillingPeriodStart")
    )
    async with books.database.read() as connection:
        for account_id in (web.team_id, ads.team_id):
            for wanted in ("2026-10", "2026-11"):
                posted = await connection.scalar(
                    select(func.sum(balances.c.posted_nano_usd)).where(
                        balances.c.account_id == account_id, balances.c.month == wanted
                    )
                )
                assert posted == sum(
                    row[billed]
                    for row in table.rows
                    if row[team] == str(account_id) and row[month].startswith(wanted)
                )


async def test_focus_is_filtered(books):
    web, ads = await books.key("web"), await books.key("ads", team="ads")
    for key in (web, ads):
        await books.request(key, text=7)
    (row,) = (await focus(books, team_id=ads.team_id)).records()
    assert row["SubAccountName"] == "ads"
