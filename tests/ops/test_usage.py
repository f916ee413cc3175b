from __future__ import annotations

import csv
from decimal import Decimal

import pyarrow.parquet
import pytest
from sqlalchemy import update

from serve_app.accounting.schema import usage_days


@pytest.fixture
def used(system):
    """Two requests of research; the first one's id."""

    async def write(books):
        first = await books.request(system.key, "2026-11-03", text=1_000_000, output=100)
        await books.request(
            system.key, "2026-11-22", text=10, image=50, waste={"output": 3}, pictures=1
        )
        await books.request(system.key, "2026-10-31", text=1)
        return first

    return system.books(write)


def words(line):
    return line.split()


def test_a_report(system, used):
    title, _, head, row, total = system.said("usage", "report").splitlines()
    assert title == "2026-11-01 to 2026-11-23 (UTC)"
    assert words(head)[:2] == ["organisation", "team"]
    assert words(row) == words(
        "default research 2 1 1,000,010 50 0 0 100 $2.00072 $0.00 $2.00072 $0.000018"
    )
    assert words(total)[0] == "total"
    assert words(total)[-2] == "$2.00072"


def test_a_report_by_kind_of_a_month(system, used):
    said = system.said("usage", "report", "--from", "2026-10", "--to", "2026-10", "--by", "kind")
    *_, row, total = said.splitlines()
    assert words(row) == words("text 1 $0.000002 $0.00 $0.000002 $0.00")
    assert words(total)[0] == "total"
    found = system.json("usage", "report", "--by", "day", "--team", "research")
    assert [row["day"] for row in found["data"]] == ["2026-11-03", "2026-11-22"]


def test_exports(system, used, tmp_path):
    file = tmp_path / "usage.csv"
    system.said("usage", "export", str(file), "--by", "model")
    (row,) = csv.DictReader(file.open())
    assert (row["model"], row["net_usd"]) == ("pixtral", "2.00072")
    file = tmp_path / "bill.parquet"
    assert "bytes" in system("usage", "export", str(file), "--focus", "--team", "research").stderr
    table = pyarrow.parquet.read_table(file)
    assert sum(table.column("BilledCost").to_pylist()) == Decimal("2.00072")


def test_a_request_and_its_refund(system, used):
    said = system.said("usage", "request", used)
    assert said.startswith(f"{used}: completed, pixtral, 2026-11-03, $0.01 held\n")
    assert words(said.splitlines()[3]) == words("1 0 0 text 1,000,000 $2.00 team")
    said = system.said("usage", "refund", "1", "--amount", "$0.50", "--reason", "slow")
    assert said == "$0.50 of line 1 are given back in 2026-11\n"
    assert "$0.50 of line 1 given back by key " in system.said("usage", "request", used)
    assert system.json("usage", "refund", "1", "--reason", "slow")["usd"] == "1.5"
    assert "left to refund" in system.refused("usage", "refund", "1", "--reason", "slow")


def test_reconcile_says_that_all_agrees_or_fails(system, used):
    system.portal.engines = {"group-a": 1_000_164}
    # In October alone: what the first request of November cost is above its hold.
    found = system("usage", "reconcile", "--month", "2026-10")
    assert (found.exit_code, found.stdout) == (0, "1 line agrees with everything, 1 engine too\n")


def test_reconcile_fails_on_any_difference(system, used):
    async def tamper(books):
        async with books.database.write() as connection:
            await connection.execute(
                update(usage_days).where(usage_days.c.kind == "image").values(tokens=51)
            )

    system.books(tamper)
    result = system("usage", "reconcile")
    assert result.exit_code == 1
    assert "usage_days tokens" in result.stdout
    assert "team research (account" in result.stdout
    result = system("usage", "reconcile", "--json")
    assert (result.exit_code, '"agrees": false' in result.stdout) == (1, True)


def test_requests_in_flight_are_told_apart(system):
    system.books(lambda books: books.hold(system.key))
    said = system.said("usage", "reconcile")
    assert "2026-11: 1 requests running ($0.01 held), 0 ended" in said


def test_a_month_is_closed(system, used):
    said = system.said("usage", "close-month", "2026-10")
    assert said == "2026-10 is closed: 1 requests, 1 lines, $0.000002 in all\n"
    assert "an hour after its end" in system.refused("usage", "close-month", "2026-11")


def test_economics(system, used):
    said = system.said("usage", "economics", "--hours", "48", "--usd-per-hour", "$0.50")
    lines = [line.split("  ") for line in said.splitlines()]
    assert lines[0][0] == "2026-11-21 00:00 to 2026-11-23 00:00 (UTC)"
    assert "machines" in said
    assert "$24.00" in said
    assert system.json("usage", "economics")["usd_per_hour"] == "12"


def test_refusals_are_one_line(system, tmp_path):
    for given, reason in (
        (("report", "--from", "yesterday"), "yesterday"),
        (("report", "--by", "user"), "by[0]"),
        (("report", "--team", "nobody"), "no team"),
        (("export", "usage.xlsx"), ".csv or .parquet"),
        (("export", "x.csv", "--focus", "--by", "day"), "--by goes without --focus"),
        (("export", str(tmp_path / "no" / "x.csv")), "cannot be written"),
        (("request", "nobody"), "no such request"),
        (("refund", "1", "--amount", "all", "--reason", "x"), "--amount all"),
        (("close-month", "October"), "month"),
        (("reconcile", "--month", "2026-13"), "2026-13"),
    ):
        assert reason in system.refused("usage", *given), given
