"""The arguments of `pixtral plan`."""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, get_args

import typer

from ops.admin.text import typed_dollars
from ops.console import JsonOption, one_line_errors
from ops.planning.machines import Cloud
from ops.problem import Problem
from ops.settings import PROFILES

DEFAULT_PROFILE = PROFILES / "pixtral-large-bf16-4xa100.yaml"


def plan(
    cloud: Annotated[str, typer.Option("--cloud", metavar="CLOUD", help="gcp, aws or azure.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Else Pixtral Large in bfloat16."),
    ] = None,
    utilisation: Annotated[
        str, typer.Option(metavar="SHARE", help="Of the bound that is really sold, 0 to 1.")
    ] = "0.3",
    usd_per_hour: Annotated[
        list[str] | None,
        typer.Option(metavar="MACHINE=PRICE", help="What you pay; may be repeated."),
    ] = None,
    machine: Annotated[
        list[str] | None,
        typer.Option(metavar="TIER=MACHINE", help="Not the usual one; may be repeated."),
    ] = None,
    prompt_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of a request on average, with its pictures.")
    ] = 1500,
    answer_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Of an answer on average.")
    ] = 300,
    json_: JsonOption = False,
) -> None:
    """Plan a cluster: nodes, whether the model fits, what it may cost at most, when it pays.

    Tokens are bounded by the GPUs' data sheets and never a measurement; a price that is not known
    is asked for. The exit code is 1 where the model does not fit.

    Example: pixtral plan --cloud gcp --usd-per-hour a2-ultragpu-4g=20 --utilisation 0.3
    """
    from ops.planning.bound import Mix
    from ops.planning.plan import make_plan
    from ops.planning.plan_text import as_dict, as_text
    from serve_app.config import load_config

    with one_line_errors():
        made = make_plan(
            _cloud(cloud),
            load_config(config or DEFAULT_PROFILE),
            mix=Mix(prompt_tokens, answer_tokens),
            utilisation=_share(utilisation),
            machines=_pairs(machine, "--machine TIER=MACHINE"),
            prices={
                name: Decimal(typed_dollars(price, f"--usd-per-hour {name}"))
                for name, price in _pairs(usd_per_hour, "--usd-per-hour MACHINE=PRICE").items()
            },
        )
        typer.echo(json.dumps(as_dict(made), indent=2) if json_ else as_text(made))
        if not made.fit.fits:
            raise typer.Exit(1)


def _cloud(text: str) -> Cloud:
    for cloud in get_args(Cloud):
        if text == cloud:
            found: Cloud = cloud
            return found
    raise Problem(f"--cloud {text}: must be one of {', '.join(get_args(Cloud))}")


def _share(text: str) -> Decimal:
    try:
        share = Decimal(text)
    except InvalidOperation:
        share = Decimal(0)
    if not (share.is_finite() and 0 < share <= 1):
        raise Problem(f"--utilisation {text}: write a share above 0 and up to 1, like 0.3")
    return share


def _pairs(given: list[str] | None, form: str) -> dict[str, str]:
    pairs = {}
    for text in given or []:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise Problem(f"{text}: write {form}")
        pairs[name] = value
    return pairs
