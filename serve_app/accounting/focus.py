"""Charges as the FinOps Foundation's FOCUS 1.2 names them, for the tools that read bills.

A row is what one key used of one kind of token on one UTC day at one price; refunds are rows of
their own, negative. A team is a sub-account of its organisation. The rows of a team's month sum to
its balance; waste, which nobody pays, is not among them.

No invoice precedes these prices and no discount changes them: list, contracted, effective and
billed cost are one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from serve_app.accounting.money import CURRENCY
from serve_app.accounting.period import day_after, month_bounds
from serve_app.accounting.reports import (
    KEY,
    ORGANISATION,
    TEAM,
    Query,
    filters,
    with_accounts,
)
from serve_app.accounting.schema import WASTE_ACCOUNT, adjustments, keys, lines
from serve_app.accounting.sums import total
from serve_app.accounting.table import Cell, Column, Table, Unit

PROVIDER = "pixtral-serve"
SERVICE = "Pixtral inference"
_UNIT = "Tokens"


async def focus_table(connection: AsyncConnection, query: Query) -> Table:
    """``query.by`` is not looked at."""
    rows = [*await _usage(connection, query), *await _refunds(connection, query)]
    rows.sort(key=lambda row: [str(row[name]) for name in _SORTED_BY])
    return Table(COLUMNS, tuple(tuple(row[column.name] for column in COLUMNS) for row in rows))


COLUMNS = (
    Column("BilledCost", Unit.NANO_USD),
    Column("BillingAccountId"),
    Column("BillingAccountName"),
    Column("BillingCurrency"),
    Column("BillingPeriodEnd"),
    Column("BillingPeriodStart"),
    Column("ChargeCategory"),
    Column("ChargeClass"),
    Column("ChargeDescription"),
    Column("ChargeFrequency"),
    Column("ChargePeriodEnd"),
    Column("ChargePeriodStart"),
    Column("ConsumedQuantity", Unit.COUNT),
    Column("ConsumedUnit"),
    Column("ContractedCost", Unit.NANO_USD),
    Column("ContractedUnitPrice", Unit.NANO_USD),
    Column("EffectiveCost", Unit.NANO_USD),
    Column("InvoiceIssuerName"),
    Column("ListCost", Unit.NANO_USD),
    Column("ListUnitPrice", Unit.NANO_USD),
    Column("PricingCategory"),
    Column("PricingQuantity", Unit.COUNT),
    Column("PricingUnit"),
    Column("ProviderName"),
    Column("PublisherName"),
    Column("ResourceId"),
    Column("ResourceName"),
    Column("ResourceType"),
    Column("ServiceCategory"),
    Column("ServiceName"),
    Column("SkuId"),
    Column("SkuPriceId"),
    Column("SubAccountId"),
    Column("SubAccountName"),
)


_SORTED_BY = ("ChargePeriodStart", "SubAccountId", "ResourceId", "ChargeCategory", "SkuPriceId")


async def _usage(connection: AsyncConnection, query: Query) -> list[dict[str, Cell]]:
    by = (*_WHO, lines.c.day, lines.c.model, lines.c.kind, lines.c.price_version)
    tokens, amount = total(lines.c.tokens), total(lines.c.nano_usd)
    wanted = (
        select(*by, tokens.label("tokens"), amount.label("nano_usd"))
        .select_from(with_accounts(lines, lines.c.key_id))
        .where(lines.c.account_id != WASTE_ACCOUNT, *filters(query, lines.c.day, lines.c.model))
        .group_by(*by)
    )
    found = (await connection.execute(wanted)).mappings()
    return [{**_charge(row), **_priced(row)} for row in found]


async def _refunds(connection: AsyncConnection, query: Query) -> list[dict[str, Cell]]:
    """On the day they were given."""
    wanted = (
        select(
            *_WHO,
            adjustments.c.day,
            lines.c.model,
            lines.c.kind,
            lines.c.price_version,
            (-adjustments.c.nano_usd).label("nano_usd"),
            adjustments.c.line_id,
            adjustments.c.reason,
            (lines.c.month != adjustments.c.month).label("of_earlier_month"),
        )
        .select_from(with_accounts(adjustments.join(lines), lines.c.key_id))
        .where(*filters(query, adjustments.c.day, lines.c.model))
        .order_by(adjustments.c.id)
    )
    found = (await connection.execute(wanted)).mappings()
    return [{**_charge(row), **_corrected(row)} for row in found]


_WHO = (
    ORGANISATION.c.id.label("organisation_id"),
    ORGANISATION.c.name.label("organisation"),
    TEAM.c.id.label("team_id"),
    TEAM.c.name.label("team"),
    keys.c.public_id.label("key"),
    KEY.c.name.label("key_name"),
)


def _charge(row: Mapping[Any, Any]) -> dict[str, Cell]:
    """What usage and refunds have in common."""
    month_start, month_end = month_bounds(row["day"][:7])
    return {
        "BilledCost": row["nano_usd"],
        "BillingAccountId": str(row["organisation_id"]),
        "BillingAccountName": row["organisation"],
        "BillingCurrency": CURRENCY,
        "BillingPeriodEnd": _midnight(month_end),
        "BillingPeriodStart": _midnight(month_start),
        "ChargePeriodEnd": _midnight(day_after(row["day"])),
        "ChargePeriodStart": _midnight(row["day"]),
        "ContractedCost": row["nano_usd"],
        "EffectiveCost": row["nano_usd"],
        "InvoiceIssuerName": PROVIDER,
        "ListCost": row["nano_usd"],
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "ResourceId": row["key"],
        "ResourceName": row["key_name"],
        "ResourceType": "API key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": SERVICE,
        "SkuId": f"{row['model']}/{row['kind']}",
        "SkuPriceId": f"{row['model']}/{row['kind']}/{row['price_version']}",
        "SubAccountId": str(row["team_id"]),
        "SubAccountName": row["team"],
    }


def _priced(row: Mapping[Any, Any]) -> dict[str, Cell]:
    price = row["nano_usd"] // row["tokens"]
    return {
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{row['kind']} tokens of {row['model']}",
        "ChargeFrequency": "Usage-Based",
        "ConsumedQuantity": row["tokens"],
        "ConsumedUnit": _UNIT,
        "ContractedUnitPrice": price,
        "ListUnitPrice": price,
        "PricingCategory": "Standard",
        "PricingQuantity": row["tokens"],
        "PricingUnit": _UNIT,
    }


def _corrected(row: Mapping[Any, Any]) -> dict[str, Cell]:
    return {
        "ChargeCategory": "Adjustment",
        # FOCUS keeps this word for what corrects a billing period that is over.
        "ChargeClass": "Correction" if row["of_earlier_month"] else None,
        "ChargeDescription": f"refund of line {row['line_id']}: {row['reason']}",
        "ChargeFrequency": "One-Time",
        **dict.fromkeys(_OF_A_QUANTITY),
    }


_OF_A_QUANTITY = (
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedUnitPrice",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
)


def _midnight(day: str) -> str:
    return f"{day}T00:00:00Z"
