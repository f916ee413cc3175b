"""``pixtral deploy``: the system as a Kubernetes cluster takes it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from ops.console import one_line_errors
from ops.deploy import layout, serve_config
from ops.deploy.manifests import documents, manifests
from ops.deploy.platform import Platform, load_platform
from serve_app.config import load_config

DEFAULT_IMAGE = f"{layout.NAME}-serve:latest"
DEFAULT_HOST = f"{layout.NAME}.internal"

app = typer.Typer(
    help="Write what a Kubernetes cluster or Ray Serve is to run.", no_args_is_help=True
)


class Format(StrEnum):
    SERVE = "serve"
    KUBERNETES = "kubernetes"


@app.callback()
def _deploy() -> None:
    """Write what a Kubernetes cluster or Ray Serve is to run."""


@app.command()
def render(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="The config to deploy (see ops/profiles/).")
    ],
    platform: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="`terraform output -json platform`; else a small CPU cluster such as kind.",
        ),
    ] = None,
    image: Annotated[
        str, typer.Option(metavar="REF", help="Of ops/images/, best by its digest.")
    ] = DEFAULT_IMAGE,
    format_: Annotated[
        Format, typer.Option("--format", help="Ray Serve's own config, or YAML for kubectl.")
    ] = Format.KUBERNETES,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Served name, if the config names no model.")
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="NAME", help="That clients call; the certificate's.")
    ] = DEFAULT_HOST,
    callers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CIDR", help="Where the load balancer's connections come from; may be repeated."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write there, not to stdout.")
    ] = None,
) -> None:
    """Render a config for a platform.

    Prints a RayService with all that stands around it, or Ray Serve's own config. Secrets are
    referred to by name and never printed.

    Example: pixtral deploy render --config prod.yaml --platform platform.json --output k8s.yaml
    """
    with one_line_errors():
        overrides: dict[str, Any] = {} if model is None else {"model.path": model}
        settings = load_config(config, overrides)
        if format_ is Format.SERVE:
            text = serve_config.as_yaml()
        else:
            target = _called_from(load_platform(platform), callers or [])
            text = documents(manifests(settings, target, image, host))
        if output is None:
            typer.echo(text, nl=False)
        else:
            output.write_text(text)
            typer.echo(f"wrote {output}", err=True)


def _called_from(platform: Platform, callers: list[str]) -> Platform:
    if not callers:
        return platform
    ingress = platform.ingress.model_copy(update={"source_cidrs": tuple(callers)})
    return platform.model_copy(update={"ingress": ingress})
