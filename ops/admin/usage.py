"""`pixtral usage`: what was used and charged, as reports and files, checked and corrected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.admin.chosen import Chosen, of_chosen
from ops.admin.client import Admin, segment
from ops.admin.text import count, dollars, table, typed_dollars
from ops.console import JsonOption, KeyOption, UrlOption, one_line_errors
from ops.problem import Problem

app = typer.Typer(
    help="Usage: reports, exports, proof, corrections.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
_FORMATS = {".csv": "csv", ".parquet": "parquet"}


@app.command("report")
@of_chosen
def report(chosen: Chosen, json_: JsonOption = False) -> None:
    """Show what was used and charged, by team unless told otherwise.

    Example: pixtral usage report --from 2026-10 --to 2026-10 --by team --by model
    """
    with one_line_errors():
        admin = Admin.of(chosen.url, chosen.key)
        found = admin.get("usage", by=chosen.by or ["team"], **chosen.params)
        typer.echo(json.dumps(found, indent=2) if json_ else _report(found))


@app.command("export")
@of_chosen
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Ending in .csv or .parquet.")],
    chosen: Chosen,
    focus: Annotated[
        bool, typer.Option("--focus", help="Under the column names of FinOps' FOCUS.")
    ] = False,
) -> None:
    """Write a report to a file, by day, key and model unless told otherwise.

    Example: pixtral usage export october.parquet --from 2026-10 --to 2026-10 --focus
    """
    with one_line_errors():
        form = _FORMATS.get(file.suffix)
        if form is None:
            raise Problem(f"{file} must end in .csv or .parquet")
        if focus and chosen.by:
            raise Problem("--by goes without --focus, whose rows are by day, key, model and kind")
        params = chosen.params
        if not focus:
            params["by"] = chosen.by or ["day", "team", "key", "model"]
        path = "usage/focus" if focus else "usage"
        content = Admin.of(chosen.url, chosen.key).read(path, format=form, **params)
        try:
            file.write_bytes(content)
        except OSError as error:
            raise Problem(f"{file} cannot be written: {error.strerror}") from error
        typer.echo(f"{file}: {len(content):,} bytes", err=True)


@app.command("request")
def request(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="As in x-request-id.")],
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Show a request's hold and lines, with the ids that `refund` takes.

    Example: pixtral usage request 019ab3f2-7c1e-7d3a-9f00-2b1c4d5e6f70
    """
    with one_line_errors():
        found = Admin.of(url, key).get(f"requests/{segment(request_id)}")
        typer.echo(json.dumps(found, indent=2) if json_ else _request(found))


@app.command("refund")
def refund(
    line: Annotated[int, typer.Argument(metavar="LINE", help="As in `usage request`.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Kept with it.")],
    amount: Annotated[
        str | None, typer.Option(metavar="DOLLARS", help="Else all that is left of the line.")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Give back what a line charged; it is posted to this month and cannot be undone.

    Example: pixtral usage refund 1234 --amount 0.02 --reason "answer was cut off"
    """
    with one_line_errors():
        body: dict[str, Any] = {"line_id": line, "reason": reason}
        if amount is not None:
            body["usd"] = typed_dollars(amount, "--amount")
        made = Admin.of(url, key).post("adjustments", body)
        if json_:
            typer.echo(json.dumps(made, indent=2))
        else:
            typer.echo(f"{dollars(made['usd'])} of line {line} are given back in {made['month']}")


@app.command("close-month")
def close_month(
    month: Annotated[str, typer.Argument(metavar="YYYY-MM")],
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Close a month for good, once all its requests are settled and audited.

    Example: pixtral usage close-month 2026-10
    """
    with one_line_errors():
        closed = Admin.of(url, key).post(f"months/{segment(month)}/close")
        if json_:
            typer.echo(json.dumps(closed, indent=2))
            return
        typer.echo(
            f"{closed['month']} is closed: {count(closed['requests'])} requests,"
            f" {count(closed['lines'])} lines, {dollars(closed['revenue_usd'])} in all"
        )


@app.command("reconcile")
def reconcile(
    month: Annotated[str | None, typer.Option(metavar="YYYY-MM", help="Else all.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Prove that ledger, balances, reports and engines agree; the exit code is 1 if they do not.

    Example: pixtral usage reconcile --month 2026-10
    """
    with one_line_errors():
        found = Admin.of(url, key).get("reconcile", month=month)
        typer.echo(json.dumps(found, indent=2) if json_ else _reconciliation(found))
        if not found["agrees"]:
            raise typer.Exit(1)


@app.command("economics")
def economics(
    hours: Annotated[int, typer.Option(metavar="N", help="The last so many.")] = 24,
    usd_per_hour: Annotated[
        str | None,
        typer.Option(metavar="DOLLARS", help="Of all machines; else accounting.usd_per_hour."),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Show what tokens really cost us, beside what they are sold for, and where it breaks even.

    Example: pixtral usage economics --hours 168 --usd-per-hour 14.40
    """
    with one_line_errors():
        price = None if usd_per_hour is None else typed_dollars(usd_per_hour, "--usd-per-hour")
        found = Admin.of(url, key).get("economics", hours=hours, usd_per_hour=price)
        typer.echo(json.dumps(found, indent=2) if json_ else _economics(found))


def _report(found: dict[str, Any]) -> str:
    """Labels, then requests and tokens, then dollars; the total below."""
    rows = [*found["data"], found["total"]] if found["by"] else [found["total"]]
    labels = [name for name in _LABELS if any(name in row for row in found["data"])]
    labels = labels if found["by"] else []
    names = [*labels, *(name for name in _COUNTS if name in rows[0])]
    table_rows = [
        (
            *(row.get(name, "total" if at == 0 else "") for at, name in enumerate(labels)),
            *(count(row.get(name)) for name in names[len(labels) :]),
            *(dollars(row[name]) for name in _AMOUNTS),
        )
        for row in rows
    ]
    head = [*names, *_AMOUNTS]
    title = f"{found['first']} to {found['last']} (UTC)"
    shown = (name.removesuffix("_usd").removesuffix("_tokens").replace("_", " ") for name in head)
    return f"{title}\n\n{table(list(shown), table_rows)}"


_LABELS = (
    "day",
    "month",
    "organisation",
    "team",
    "key",
    "key_name",
    "model",
    "kind",
    "request",
)
_COUNTS = (
    "requests",
    "picture_requests",
    "tokens",
    "text_tokens",
    "image_tokens",
    "cached_text_tokens",
    "cached_image_tokens",
    "output_tokens",
)
_AMOUNTS = ("charged_usd", "refunded_usd", "net_usd", "wasted_usd")


def _request(found: dict[str, Any]) -> str:
    hold = found["hold"]
    ended = hold["outcome"] or "running"
    title = (
        f"{hold['request_id']}: {ended}, {hold['model']}, {hold['day']},"
        f" {dollars(hold['amount_usd'])} held"
    )
    head = ("line", "attempt", "choice", "kind", "tokens", "dollars", "paid by")
    lines = [
        (
            line["id"],
            line["attempt"],
            line["choice"],
            line["kind"],
            count(line["tokens"]),
            dollars(line["usd"]),
            "nobody" if line["waste"] else "team",
        )
        for line in found["lines"]
    ]
    refunds = [
        f"{dollars(each['usd'])} of line {each['line_id']} given back by {each['actor']}:"
        f" {each['reason']}"
        for each in found["adjustments"]
    ]
    return "\n".join([title, "", table(head, lines) if lines else "no lines", *refunds])


def _reconciliation(found: dict[str, Any]) -> str:
    lines = [
        f"{each['month']}: {count(each['running'])} requests running"
        f" ({dollars(each['held_usd'])} held), {count(each['unaudited'])} ended and not yet"
        " compared with the journal"
        for each in found["in_flight"]
    ]
    if found["busy_engines"]:
        lines.append(f"not compared while at work: groups {', '.join(found['busy_engines'])}")
    if found["agrees"]:
        booked, idle = found["lines"], len(found["engines"])
        agreeing = "1 line agrees" if booked == 1 else f"{count(booked)} lines agree"
        engines = "1 engine" if idle == 1 else f"{idle} engines"
        lines.append(f"{agreeing} with everything, {engines} too")
        return "\n".join(lines)
    head = ("what", "where", "month", "expected", "found", "unit")
    differences = [tuple(each[name] for name in head) for each in found["differences"]]
    lines += [f"{len(differences)} differences", "", table(head, differences)]
    return "\n".join(lines)


def _economics(found: dict[str, Any]) -> str:
    start, end = (found[name][:16].replace("T", " ") for name in ("start", "end"))
    rows = [
        ("tokens sold", count(found["tokens"])),
        ("  of answers", count(found["output_tokens"])),
        ("tokens wasted", count(found["wasted_tokens"])),
        ("machines", dollars(found["cost_usd"])),
        ("revenue", dollars(found["revenue_usd"])),
        ("margin", dollars(found["margin_usd"])),
        ("a million tokens cost", dollars(found["usd_per_million_tokens"])),
        ("a million answer tokens cost", dollars(found["usd_per_million_output_tokens"])),
        ("tokens an hour", count(found["tokens_per_hour"])),
        ("break-even tokens an hour", count(found["break_even_tokens_per_hour"])),
    ]
    head = (f"{start} to {end} (UTC)", f"at {dollars(found['usd_per_hour'])} an hour")
    return table(head, rows)
