"""What the reports and exports of `pixtral usage` are about: options that both take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from ops.console import KeyOption, UrlOption


@dataclass(frozen=True, slots=True)
class Chosen:
    first: Annotated[
        str | None,
        typer.Option("--from", metavar="DAY", help="First day or month (UTC); else this month's."),
    ] = None
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="Last day or month; else today.")
    ] = None
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="WHAT",
            help="day, month, organisation, team, key, model, kind or request (picture or text);"
            " may be repeated.",
        ),
    ] = None
    team: Annotated[str | None, typer.Option("--team", metavar="TEAM", help="Of one team.")] = None
    of_key: Annotated[
        str | None, typer.Option("--of-key", metavar="ID", help="Of one key, by its public id.")
    ] = None
    model: Annotated[str | None, typer.Option("--model", metavar="NAME", help="Of one model.")] = (
        None
    )
    url: UrlOption = None
    key: KeyOption = None

    @property
    def params(self) -> dict[str, Any]:
        """As the admin API calls them, without ``by``."""
        return {
            "from": self.first,
            "to": self.last,
            "team": self.team,
            "key": self.of_key,
            "model": self.model,
        }


def of_chosen(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command the options of ``Chosen``, which it takes as its parameter ``chosen``.

    Typer reads a command's signature, so they are written into it.
    """
    shared = get_type_hints(Chosen, include_extras=True)
    own = get_type_hints(command, include_extras=True)
    parameters = [
        parameter.replace(annotation=own[name])
        for name, parameter in inspect.signature(command).parameters.items()
        if name != "chosen"
    ]
    kind = inspect.Parameter.KEYWORD_ONLY
    parameters += [
        inspect.Parameter(each.name, kind, default=each.default, annotation=shared[each.name])
        for each in fields(Chosen)
    ]

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = Chosen(**{each.name: given.pop(each.name) for each in fields(Chosen)})
        command(chosen=chosen, **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
