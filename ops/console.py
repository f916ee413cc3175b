"""What every `pixtral` command shares: which system it speaks to, and how it ends in an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import typer

from ops.edge import Endpoints
from ops.problem import Problem
from ops.state import State
from serve_app.cluster import ClusterError
from serve_app.config import ConfigError
from shards.errors import ShardsError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
UrlOption = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Another system's base URL, with its /v1."),
]
KeyOption = Annotated[
    str | None, typer.Option("--key", metavar="KEY", envvar="PIXTRAL_API_KEY", help="Its key.")
]


@dataclass(frozen=True, slots=True)
class Target:
    """Base URL, key, and whether the model is known to be untrained."""

    base_url: str
    api_key: str
    untrained: bool

    @property
    def root(self) -> str:
        """What /admin is under."""
        return self.base_url.removesuffix("/v1")


def target(url: str | None, key: str | None) -> Target:
    """The system at ``url``, else the one that runs here.

    Raises:
        Problem: nothing runs here, or its key cannot be read.
    """
    if url is not None:
        # The local system's key is never sent to another.
        return Target(url.rstrip("/"), key or "", untrained=False)
    state = State.open()
    running = state.running()
    if running is None:
        raise Problem("nothing is running; start it with `pixtral up`")
    return Target(
        Endpoints.of(running.config).base_url,
        key or state.api_key(running.config),
        running.config.model.untrained,
    )


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a person can mend is told in one line; anything else is a defect and shows its trace."""
    try:
        yield
    except (Problem, ConfigError, ClusterError, ShardsError) as error:
        typer.echo(f"pixtral: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
