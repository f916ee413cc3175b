"""`pixtral teams`: who pays, how much they may spend, and how fast."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ops.admin.client import Admin, segment
from ops.admin.text import NONE, count, dollars, table, typed_count, typed_dollars
from ops.console import JsonOption, KeyOption, UrlOption, one_line_errors
from ops.problem import Problem

app = typer.Typer(
    help="Teams, their budgets and limits.", no_args_is_help=True, rich_markup_mode=None
)
TeamArgument = Annotated[
    str, typer.Argument(metavar="TEAM", help="Or ORGANISATION/TEAM, if the name is ambiguous.")
]
_LIMIT = f"A number, or {NONE}."


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    organisation: Annotated[
        str | None, typer.Option(metavar="NAME", help="Made if it is new; else `default`.")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Make a team, which pays for what its keys use.

    Example: pixtral teams create research --organisation acme
    """
    with one_line_errors():
        admin = Admin.of(url, key)
        body = {"name": name}
        if organisation is not None:
            known = {each["name"] for each in admin.get("organisations")["data"]}
            if organisation not in known:
                admin.post("organisations", {"name": organisation})
            body["organisation"] = organisation
        made = admin.post("teams", body)
        if json_:
            typer.echo(json.dumps(made, indent=2))
        else:
            typer.echo(f"team {made['organisation']}/{made['name']} is made")


@app.command("list")
def list_(url: UrlOption = None, key: KeyOption = None, json_: JsonOption = False) -> None:
    """Show teams, what they spent this month and what their budgets leave.

    Example: pixtral teams list
    """
    with one_line_errors():
        teams = Admin.of(url, key).get("teams")["data"]
        if json_:
            typer.echo(json.dumps(teams, indent=2))
            return
        head = ("organisation", "team", "budget", "spent", "held", "left", "running")
        typer.echo(table(head, map(_row, teams)))


@app.command("set-budget")
def set_budget(
    team: TeamArgument,
    amount: Annotated[
        str, typer.Argument(metavar="DOLLARS", help=f"For each month (UTC), or {NONE}.")
    ],
    alert: Annotated[
        list[int] | None,
        typer.Option(metavar="PERCENT", help="Tell when so much is spent; may be repeated."),
    ] = None,
    alert_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The webhook that is told.")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Set what a team may spend in a month; once it is spent, nothing more is admitted.

    Example: pixtral teams set-budget research '$1,500.00' --alert 80
    """
    with one_line_errors():
        body: dict[str, Any] = {
            "budget_usd": None if amount == NONE else typed_dollars(amount, "DOLLARS")
        }
        if alert is not None:
            body["alert_percents"] = alert
        if alert_url is not None:
            body["alert_url"] = None if alert_url == NONE else alert_url
        _limit(Admin.of(url, key), team, body, json_)


@app.command("set-limits")
def set_limits(
    team: TeamArgument,
    rpm: Annotated[
        str | None, typer.Option(metavar="N", help=f"Requests a minute. {_LIMIT}")
    ] = None,
    input_tpm: Annotated[
        str | None, typer.Option(metavar="N", help=f"Input tokens a minute. {_LIMIT}")
    ] = None,
    output_tpm: Annotated[
        str | None, typer.Option(metavar="N", help=f"Output tokens a minute. {_LIMIT}")
    ] = None,
    concurrent: Annotated[
        str | None, typer.Option(metavar="N", help=f"Requests at work at once. {_LIMIT}")
    ] = None,
    pictures: Annotated[
        str | None, typer.Option(metavar="N", help=f"Pictures in a request. {_LIMIT}")
    ] = None,
    weight: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Its part of the tokens beside other teams while they want more than there is:"
            f" 3 gets three times what 1 gets, which {NONE} is.",
        ),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Set how fast a team may spend; what is not named stays as it is.

    Example: pixtral teams set-limits research --rpm 600 --concurrent 32 --weight 3
    """
    with one_line_errors():
        named = {
            "requests_per_minute": ("--rpm", rpm),
            "input_tokens_per_minute": ("--input-tpm", input_tpm),
            "output_tokens_per_minute": ("--output-tpm", output_tpm),
            "max_concurrent": ("--concurrent", concurrent),
            "max_pictures": ("--pictures", pictures),
            "weight": ("--weight", weight),
        }
        body = {
            name: typed_count(value, option)
            for name, (option, value) in named.items()
            if value is not None
        }
        if not body:
            raise Problem("name a limit to set: --rpm, --input-tpm, --output-tpm, …")
        _limit(Admin.of(url, key), team, body, json_)


def _limit(admin: Admin, team: str, body: dict[str, Any], json_: bool) -> None:
    limits = admin.patch(f"teams/{segment(team)}/limits", body)
    if json_:
        typer.echo(json.dumps(limits, indent=2))
    else:
        typer.echo(limits_text(limits))


def limits_text(limits: dict[str, Any]) -> str:
    alerts = ", ".join(f"{percent} %" for percent in limits["alert_percents"])
    rows = [
        ("budget a month", dollars(limits["budget_usd"])),
        ("requests a minute", count(limits["requests_per_minute"])),
        ("input tokens a minute", count(limits["input_tokens_per_minute"])),
        ("output tokens a minute", count(limits["output_tokens_per_minute"])),
        ("requests at once", count(limits["max_concurrent"])),
        ("pictures in a request", count(limits["max_pictures"])),
        ("weight beside other teams", count(limits["weight"] or 1)),
        ("alerts at", alerts),
        ("alerts go to", limits["alert_url"]),
    ]
    return table(("limit", "value"), rows)


def _row(team: dict[str, Any]) -> tuple[Any, ...]:
    standing = team["standing"]
    return (
        team["organisation"],
        team["name"],
        dollars(team["limits"]["budget_usd"]),
        dollars(standing["posted_usd"]),
        dollars(standing["held_usd"]),
        dollars(standing["remaining_usd"]),
        count(standing["concurrent"]),
    )
