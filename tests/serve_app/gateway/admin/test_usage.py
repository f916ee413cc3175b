from __future__ import annotations

import csv
import io
from decimal import Decimal

import pyarrow.parquet
import pytest

from tests.serve_app.conftest import store_url

__all__ = ["store_url"]


@pytest.fixture
async def used(portal):
    """The member's team used the model with pictures, another one without."""
    other = await portal.books.key("web", team="ads", organisation="acme")
    await portal.books.request(portal.key, "2026-11-03", text=10, image=50, output=5, pictures=1)
    await portal.books.request(portal.key, "2026-10-31", text=1_000)
    await portal.books.request(other, "2026-11-22", text=7, waste={"output": 2})
    return other


async def test_usage_of_this_month_by_team(portal, used):
    answer = await portal.got("/admin/usage", by=["team", "month"])
    assert (answer["first"], answer["last"]) == ("2026-11-01", "2026-11-23")
    assert answer["by"] == ["team", "month"]
    ads, research = answer["data"]
    assert ads == {
        "organisation": "acme",
        "team": "ads",
        "month": "2026-11",
        "requests": 1,
        "picture_requests": 0,
        "text_tokens": 7,
        "image_tokens": 0,
        "cached_text_tokens": 0,
        "cached_image_tokens": 0,
        "output_tokens": 0,
        "charged_usd": "0.000014",
        "refunded_usd": "0",
        "net_usd": "0.000014",
        "wasted_tokens": 2,
        "wasted_usd": "0.000012",
    }
    assert (research["team"], research["charged_usd"]) == ("research", "0.00015")
    assert answer["total"]["requests"] == 2
    assert answer["total"]["charged_usd"] == "0.000164"
    assert "team" not in answer["total"]


async def test_filters_and_sources(portal, used):
    for params, charged in (
        ({"from": "2026-10", "to": "2026-10"}, "0.002"),
        ({"team": "acme/ads"}, "0.000014"),
        ({"key": used.public_id}, "0.000014"),
        ({"model": "pixtral"}, "0.000164"),
        ({"model": "none"}, "0"),
        ({"source": "lines"}, "0.000164"),
        ({"from": "2026-11-04", "to": "2026-11-21"}, "0"),
    ):
        answer = await portal.got("/admin/usage", **params)
        assert answer["total"]["charged_usd"] == charged, params


async def test_picture_and_text_requests(portal, used):
    answer = await portal.got("/admin/usage", by="request")
    assert [(row["request"], row["requests"]) for row in answer["data"]] == [
        ("picture", 1),
        ("text", 1),
    ]


async def test_files(portal, used):
    answer = await portal.finance.get("/admin/usage", params={"by": "day", "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="usage.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["day"], row["net_usd"]) for row in rows] == [
        ("2026-11-03", "0.00015"),
        ("2026-11-22", "0.000014"),
    ]
    answer = await portal.finance.get("/admin/usage/focus", params={"format": "parquet"})
    assert answer.headers["content-type"] == "application/x-parquet"
    table = pyarrow.parquet.read_table(io.BytesIO(answer.content))
    assert sum(table.column("BilledCost").to_pylist()) == Decimal("0.000164")
    rows = (await portal.got("/admin/usage/focus", team="ads"))["data"]
    assert [row["SubAccountName"] for row in rows] == ["ads"]


async def test_a_lead_sees_its_own_team_only(portal, used):
    for path in ("/admin/usage", "/admin/usage/focus"):
        other = await portal.lead.get(path, params={"team": "ads"})
        assert other.status_code == 403
    own = await portal.lead.get("/admin/usage")
    assert own.json()["total"]["charged_usd"] == "0.00015"
    theirs = await portal.lead.get("/admin/usage", params={"key": used.public_id})
    assert theirs.json()["total"]["charged_usd"] == "0"
    rows = (await portal.lead.get("/admin/usage/focus")).json()["data"]
    assert {row["SubAccountName"] for row in rows} == {"research"}


@pytest.mark.parametrize(
    ("params", "status", "param"),
    [
        ({"from": "yesterday"}, 400, "from"),
        ({"from": "2026-11-05", "to": "2026-11-04"}, 400, "from"),
        ({"by": ["team", "team"]}, 422, "by"),
        ({"by": "user"}, 422, "by[0]"),
        ({"format": "xml"}, 422, "format"),
        ({"team": "nobody"}, 404, "team"),
        ({"key": "nobody"}, 404, "public_id"),
        ({"model": "a\0"}, 422, "model"),
    ],
)
async def test_what_cannot_be_asked(portal, params, status, param):
    answer = await portal.admin.get("/admin/usage", params=params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_economics(portal, used):
    answer = await portal.got("/admin/economics", hours=24)
    assert answer == {
        "start": "2026-11-22T00:00:00Z",
        "end": "2026-11-23T00:00:00Z",
        "usd_per_hour": "12",
        "tokens": 7,
        "output_tokens": 0,
        "wasted_tokens": 2,
        "cost_usd": "288.000000000",
        "revenue_usd": "0.000014",
        "margin_usd": "-287.999986000",
        "usd_per_million_tokens": "41142857.142857143",
        "usd_per_million_output_tokens": None,
        "tokens_per_hour": 0,
        "break_even_tokens_per_hour": 6_000_000,
    }
    other = await portal.got("/admin/economics", hours=24, usd_per_hour="0.5")
    assert other["cost_usd"] == "12.000000000"


async def test_economics_needs_a_price(portal):
    object.__setattr__(portal.settings, "usd_per_hour", None)
    answer = await portal.admin.get("/admin/economics")
    assert answer.status_code == 409
    assert "accounting.usd_per_hour" in answer.json()["error"]["message"]


async def test_own_usage_of_a_team_and_of_a_member(portal, used):
    colleague = await portal.office.directory.create_key("default/research", "ci", actor="test")
    client = portal.client(colleague.secret)
    own = (await portal.lead.get("/v1/usage", params={"by": "kind"})).json()
    assert (own["scope"], own["name"]) == ("team", "research")
    assert [(row["kind"], row["tokens"]) for row in own["data"]] == [
        ("image", 50),
        ("output", 5),
        ("text", 10),
    ]
    assert own["standing"]["posted_usd"] == own["total"]["net_usd"] == "0.00015"
    assert own["budget_usd"] is None
    member = (await portal.member.get("/v1/usage")).json()
    assert (member["scope"], member["name"]) == ("key", "member")
    assert member["total"]["charged_usd"] == "0.00015"
    assert (await client.get("/v1/usage")).json()["total"]["charged_usd"] == "0"
    await client.aclose()
