"""`pixtral prices`: what a million tokens cost, from when on. Versions are added, never edited."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ops.admin.client import Admin
from ops.admin.text import dollars, table, typed_dollars
from ops.console import JsonOption, KeyOption, UrlOption, one_line_errors

app = typer.Typer(help="Prices of models.", no_args_is_help=True, rich_markup_mode=None)
_KINDS = ("text", "image", "cached_text", "cached_image", "output")


@app.command("list")
def list_(
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Of one model.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Show price versions in dollars per million tokens, the last to take effect first.

    Example: pixtral prices list
    """
    with one_line_errors():
        prices = Admin.of(url, key).get("prices", model=model)["data"]
        typer.echo(json.dumps(prices, indent=2) if json_ else _text(prices))


@app.command("add")
def add(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    input_: Annotated[
        str, typer.Option("--input", metavar="DOLLARS", help="For a million prompt tokens.")
    ],
    output: Annotated[str, typer.Option(metavar="DOLLARS", help="For a million answer tokens.")],
    image: Annotated[
        str | None, typer.Option(metavar="DOLLARS", help="Of pictures; else as --input.")
    ] = None,
    cached: Annotated[
        str | None, typer.Option(metavar="DOLLARS", help="Of cached tokens; else as uncached.")
    ] = None,
    tier: Annotated[str, typer.Option(metavar="TIER", help="standard or batch.")] = "standard",
    effective: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Like 2027-01-01T00:00:00Z, a minute ahead at least; else soon."
        ),
    ] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Add a price version; requests that run keep their prices.

    Example: pixtral prices add pixtral-large --input 2.00 --output 6.00 --cached 0.50
    """
    with one_line_errors():
        typed = {
            "text_usd": ("--input", input_),
            "output_usd": ("--output", output),
            "image_usd": ("--image", image),
            "cached_text_usd": ("--cached", cached),
            "cached_image_usd": ("--cached", cached),
        }
        body: dict[str, Any] = {
            name: typed_dollars(value, option)
            for name, (option, value) in typed.items()
            if value is not None
        }
        if effective is not None:
            body["effective_at"] = effective
        made = Admin.of(url, key).post("prices", {"model": model, "tier": tier, **body})
        typer.echo(json.dumps(made, indent=2) if json_ else _text([made]))


def _text(prices: list[dict[str, Any]]) -> str:
    head = ("model", "tier", *(kind.replace("_", " ") for kind in _KINDS), "from", "set by")
    return table(head, map(_row, prices))


def _row(price: dict[str, Any]) -> tuple[Any, ...]:
    return (
        price["model"],
        price["tier"],
        *(dollars(price[f"{kind}_usd"]) for kind in _KINDS),
        price["effective_at"][:19].replace("T", " "),
        price["created_by"],
    )
