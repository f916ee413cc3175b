"""Reports over both sources: by anything, of anything, to the token and nano-dollar."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from serve_app.accounting import reports
from serve_app.accounting.period import Period
from serve_app.accounting.reports import Dimension, Query, label_names, sum_of, usage_table
from serve_app.accounting.schema import lines
from tests.serve_app.accounting.books import Books

NOVEMBER = Period("2026-11-01", "2026-11-30")


@pytest.fixture
async def books(database):
    return Books(database)


async def usage(books, *by, period=NOVEMBER, from_lines=False, **filters):
    async with books.database.read() as connection:
        query = Query(period, tuple(Dimension(name) for name in by), **filters)
        return await reports.usage(connection, query, from_lines=from_lines)


async def filled(books):
    search, ads = await books.key("web"), await books.key("ads", team="ads")
    await books.request(search, "2026-11-03", text=100, output=10)
    await books.request(search, "2026-11-04", text=50, image=600, output=20, pictures=2)
    await books.request(ads, "2026-11-04", text=7, output=1, model="small", waste={"output": 5})
    await books.request(ads, "2026-10-31", text=1_000, output=1_000)
    return search, ads


async def test_a_team_is_charged_by_kind_and_its_requests_are_counted(books):
    await filled(books)
    found = await usage(books, "team")
    assert list(found) == [("acme", "ads"), ("acme", "search")]
    search = found["acme", "search"]
    assert search.tokens == {
        "text": 150,
        "image": 600,
        "cached_text": 0,
        "cached_image": 0,
        "output": 30,
    }
    assert search.charged_nano_usd == 750 * 2_000 + 30 * 6_000
    assert (search.requests, search.picture_requests) == (2, 1)
    assert search.wasted_tokens == 0


async def test_waste_is_shown_beside_the_team_whose_request_it_was_and_not_charged(books):
    await filled(books)
    ads = (await usage(books, "team"))["acme", "ads"]
    assert ads.charged_nano_usd == 7 * 2_000 + 1 * 6_000
    assert (ads.wasted_tokens, ads.wasted_nano_usd) == (5, 30_000)


async def test_rejected_drafts_are_waste_at_the_price_of_answers(books):
    key = await books.key("web")
    await books.request(key, text=10, output=2, waste={"rejected_draft": 3})
    ((total),) = (await usage(books)).values()
    assert (total.charged_nano_usd, total.tokens["output"]) == (10 * 2_000 + 2 * 6_000, 2)
    assert (total.wasted_tokens, total.wasted_nano_usd) == (3, 18_000)
    by_kind = await usage(books, "kind")
    drafts = by_kind["rejected_draft",]
    assert (sum(drafts.tokens.values()), drafts.charged_nano_usd) == (0, 0)
    assert (drafts.wasted_tokens, drafts.wasted_nano_usd) == (3, 18_000)
    # No column of the bill is theirs: nobody is ever charged for one.
    assert "rejected_draft_tokens" not in [c.name for c in usage_table((), {(): total}).columns]


async def test_the_rollup_says_what_the_lines_say(books):
    await filled(books)
    for by in (("day", "key"), ("month", "model", "kind"), ("organisation",), ()):
        assert await usage(books, *by) == await usage(books, *by, from_lines=True) != {}


@pytest.mark.parametrize(
    ("by", "labels"),
    [
        ("day", [("2026-11-03",), ("2026-11-04",)]),
        ("month", [("2026-11",)]),
        ("key", [("pk_ads", "ads"), ("pk_web", "web")]),
        ("model", [("pixtral",), ("small",)]),
        ("kind", [("image",), ("output",), ("text",)]),
        ("request", [("picture",), ("text",)]),
        ("organisation", [("acme",)]),
    ],
)
async def test_every_dimension_groups(books, by, labels):
    await filled(books)
    assert list(await usage(books, by)) == labels


async def test_picture_requests_are_told_apart_from_text_requests_in_tokens_and_money(books):
    await filled(books)
    found = await usage(books, "request")
    assert found[("picture",)].charged_nano_usd == 650 * 2_000 + 20 * 6_000
    assert found[("picture",)].tokens["image"] == 600
    assert (found[("text",)].requests, found[("picture",)].requests) == (2, 1)
    assert found[("text",)].tokens["image"] == 0


async def test_filters_narrow(books):
    search, ads = await filled(books)
    everything = (await usage(books))[()]
    for filters, requests in (
        ({"team_id": search.team_id}, 2),
        ({"key_id": ads.key_id}, 1),
        ({"model": "small"}, 1),
        ({"organisation_id": ads.organisation_id}, 3),
        ({"period": Period("2026-11-04", "2026-11-04")}, 2),
        ({"period": Period("2026-10-01", "2026-11-30")}, 4),
    ):
        assert (await usage(books, **filters))[()].requests == requests
    assert everything.requests == 3
    assert await usage(books, "team", model="unknown") == {}
    assert (await usage(books, model="unknown"))[()].requests == 0


async def test_refunds_count_on_the_day_they_are_given(books):
    await filled(books)
    async with books.database.read() as connection:
        line = await connection.scalar(select(func.min(lines.c.id)))
    await books.refund(line, 1_500, "2026-11-20")
    found = await usage(books, "day")
    assert found[("2026-11-20",)].refunded_nano_usd == 1_500
    assert found[("2026-11-20",)].requests == 0
    total = (await usage(books, "team"))["acme", "search"]
    assert (total.charged_nano_usd, total.refunded_nano_usd) == (1_680_000, 1_500)


async def test_same_names_in_two_organisations_stay_apart(books):
    for organisation in ("acme", "umbrella"):
        key = await books.key(f"web-{organisation}", organisation=organisation)
        await books.request(key, output=1)
    found = await usage(books, "team")
    assert list(found) == [("acme", "search"), ("umbrella", "search")]


async def test_a_table_has_exact_amounts_and_a_sum(books):
    await filled(books)
    found = await usage(books, "team", "month")
    table = usage_table((Dimension.TEAM, Dimension.MONTH), found)
    ads, _ = table.records()
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
        "output_tokens": 1,
        "charged_usd": "0.00002",
        "refunded_usd": "0",
        "net_usd": "0.00002",
        "wasted_tokens": 5,
        "wasted_usd": "0.00003",
    }
    total = sum_of(found)
    assert total == (await usage(books))[()]
    assert total.requests == 3


async def test_requests_are_not_divided_among_kinds(books):
    await filled(books)
    by = (Dimension.KIND,)
    found = await usage(books, *by)
    (image, output, text) = usage_table(by, found).records()
    assert "requests" not in image
    assert [image["tokens"], output["tokens"], text["tokens"]] == [600, 31, 157]
    assert sum_of(found).requests is None


async def test_a_request_that_still_runs_is_counted_and_costs_nothing_yet(books):
    key = await books.key("web")
    await books.hold(key)
    running = (await usage(books))[()]
    assert (running.requests, running.charged_nano_usd) == (1, 0)


def test_labels_are_not_repeated():
    assert label_names((Dimension.ORGANISATION, Dimension.TEAM)) == ("organisation", "team")
