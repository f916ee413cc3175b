"""`pixtral keys`: who may call. A secret is printed once, when its key is made."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from ops.admin.client import Admin, segment
from ops.admin.text import table, typed_dollars
from ops.console import JsonOption, KeyOption, UrlOption, one_line_errors

app = typer.Typer(help="API keys of teams.", no_args_is_help=True, rich_markup_mode=None)
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Its public id, as in `keys list`.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    team: Annotated[str, typer.Option(metavar="TEAM", help="Which pays for it.")],
    role: Annotated[
        str, typer.Option(metavar="ROLE", help="admin, lead, member or finance.")
    ] = "member",
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="For this only; may be repeated.")
    ] = None,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="For this only: chat, tokenize, models, usage, admin. Repeatable."
        ),
    ] = None,
    expires_days: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=36_500, help="Ends by itself.")
    ] = None,
    budget: Annotated[
        str | None, typer.Option(metavar="DOLLARS", help="Of its own, for each month (UTC).")
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Make a key; its secret is printed this once.

    Example: pixtral keys create ci --team research --expires-days 90
    """
    with one_line_errors():
        body: dict[str, Any] = {
            "team": team,
            "name": name,
            "role": role,
            "models": model or [],
            "endpoints": endpoint or [],
        }
        if expires_days is not None:
            ends = datetime.now(UTC) + timedelta(days=expires_days)
            body["expires_at"] = ends.isoformat(timespec="seconds")
        if budget is not None:
            body["limits"] = {"budget_usd": typed_dollars(budget, "--budget")}
        _made(Admin.of(url, key).post("keys", body), json_)


@app.command("list")
def list_(
    team: Annotated[str | None, typer.Option(metavar="TEAM", help="Of one team.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Show keys without their secrets, ended ones too.

    Example: pixtral keys list --team research
    """
    with one_line_errors():
        keys = Admin.of(url, key).get("keys", team=team)["data"]
        if json_:
            typer.echo(json.dumps(keys, indent=2))
            return
        head = ("id", "organisation", "team", "name", "role", "state", "expires", "for")
        typer.echo(table(head, map(_row, keys)))


@app.command("revoke")
def revoke(
    public_id: IdArgument, url: UrlOption = None, key: KeyOption = None, json_: JsonOption = False
) -> None:
    """End a key for good, on every gateway within two seconds.

    Example: pixtral keys revoke k3v7qapx2mzd
    """
    with one_line_errors():
        ended = Admin.of(url, key).post(f"keys/{segment(public_id)}/revoke")
        if json_:
            typer.echo(json.dumps(ended, indent=2))
        else:
            typer.echo(f"key {ended['public_id']} ({ended['name']}) is {ended['state']}")


@app.command("rotate")
def rotate(
    public_id: IdArgument,
    overlap_s: Annotated[
        int, typer.Option(metavar="SECONDS", help="For how long the old key stays good.")
    ] = 86_400,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Put another secret in a key's place; both are good until the old one ends.

    Example: pixtral keys rotate k3v7qapx2mzd --overlap-s 3600
    """
    with one_line_errors():
        body = {"overlap_s": overlap_s}
        _made(Admin.of(url, key).post(f"keys/{segment(public_id)}/rotate", body), json_)


def _made(made: dict[str, Any], json_: bool) -> None:
    if json_:
        typer.echo(json.dumps(made, indent=2))
        return
    typer.echo(made["secret"])
    typer.echo(
        f"key {made['public_id']} ({made['name']}, {made['role']} of"
        f" {made['organisation']}/{made['team']}); its secret is not shown again",
        err=True,
    )


def _row(key: dict[str, Any]) -> tuple[Any, ...]:
    scope = ", ".join([*key["models"], *key["endpoints"]]) or "everything"
    expires = key["expires_at"] and key["expires_at"][:16].replace("T", " ")
    return (
        key["public_id"],
        key["organisation"],
        key["team"],
        key["name"],
        key["role"],
        key["state"],
        expires,
        scope,
    )
