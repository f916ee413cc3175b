"""The ``pixtral`` command: arguments, help and exit codes; the work is done in the modules beside.

Ray and torch are imported only where a command needs them, so that help and errors come at once.
"""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from ops import doctor as examination
from ops import question, summary
from ops.admin import keys, prices, teams, usage
from ops.bench import __main__ as bench
from ops.console import JsonOption, KeyOption, UrlOption, one_line_errors, target
from ops.deploy import command as deploy_command
from ops.eval.command import evaluate
from ops.launch import UNTRAINED, hold
from ops.planning.command import plan as plan_command
from ops.problem import Problem
from ops.progress import show_live
from ops.served import bundled, first_model, launcher
from ops.settings import Options, resolve
from ops.state import State
from ops.status import overview, overviews
from ops.weights import commands as weights
from serve_app import cluster

app = typer.Typer(
    help="Serve Pixtral on this machine: start, look, ask, stop.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(teams.app, name="teams")
app.add_typer(keys.app, name="keys")
app.add_typer(prices.app, name="prices")
app.add_typer(usage.app, name="usage")
app.add_typer(bench.app, name="bench")
app.add_typer(weights.app, name="weights")
app.add_typer(deploy_command.app, name="deploy")

ModelOption = Annotated[
    Path | None,
    typer.Option("--model", metavar="DIR", help="A Pixtral checkpoint; else the bundled model."),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A config (see ops/profiles/); else `local`."),
]
PortOption = Annotated[int | None, typer.Option("--port", metavar="N", help="Of the REST API.")]
RanksOption = Annotated[
    int | None, typer.Option("--tp", metavar="N", help="Tensor-parallel ranks of a group.")
]


@app.command()
def up(
    model: ModelOption = None,
    port: PortOption = None,
    tp: RanksOption = None,
    config: ConfigOption = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once it is ready; `pixtral down` stops it.")
    ] = False,
    observe: Annotated[
        bool, typer.Option("--observe", help="Start this machine's Prometheus beside it.")
    ] = False,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Ask for no key; on loopback only.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Start the system and print where everything is.

    Stays in the foreground until Ctrl-C unless told to --detach. The Ray dashboard and every other
    Ray port ask for a token; the command that shows it is printed.

    Example: pixtral up --model ~/models/Pixtral-12B-2409 --tp 2 --detach
    """
    options = Options(
        config, model, port, tp, auth=False if no_auth else None, observe=observe or None
    )
    with one_line_errors():
        starter = launcher()
        with _terminated_is_interrupted():
            started = starter.up(options)
        if json_:
            typer.echo(summary.as_json(started))
        else:
            ray = cluster.environment(started.config, starter.state.folder)
            typer.echo(summary.as_text(started, ray_token=Path(ray["RAY_AUTH_TOKEN_PATH"])))
        if detach or started.already:
            return
        typer.echo("\nCtrl-C stops it.", err=True)
        # Once more, as Ray has put its own handler in place of ours.
        with _terminated_is_interrupted():
            try:
                hold(starter.state)
            finally:
                starter.down()


@app.command()
def down() -> None:
    """Stop the system.

    Leaves no process behind; the key and cached models are kept. Fine when nothing runs.

    Example: pixtral down
    """
    with one_line_errors():
        if not launcher().down():
            typer.echo("nothing is running")


@app.command()
def status(
    live: Annotated[bool, typer.Option("--live", help="Stay, and refresh until Ctrl-C.")] = False,
    json_: JsonOption = False,
) -> None:
    """Show what runs, what it does and whether it is ready.

    Tiers with replicas and queues, KV cache, tokens a second, what today brought, and addresses;
    the exit code is 0 when ready.

    Example: pixtral status --json
    """
    with one_line_errors():
        state = State.open()
        running = state.running()
        if running is None:
            raise Problem("nothing is running; start it with `pixtral up`")
        if live and json_:
            raise Problem("--live is for people: leave out --json")
        if live:
            show_live(each.as_text() for each in overviews(running, state, cluster.status))
            return
        seen = overview(running, state, cluster.status)
        typer.echo(json.dumps(seen.as_dict(), indent=2) if json_ else seen.as_text())
        if not seen.ready:
            raise typer.Exit(1)


@app.command()
def ask(
    text: Annotated[str, typer.Argument(metavar="QUESTION", help="What to ask.")],
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="FILE", help="A picture; may be repeated."),
    ] = None,
    document: Annotated[
        list[Path] | None,
        typer.Option("--document", metavar="FILE", help="A PDF, if enabled; may be repeated."),
    ] = None,
    pages: Annotated[
        str | None, typer.Option(metavar="RANGES", help="Of each document, as 1-3,7 or 5-.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(metavar="N", help="Of each animation, evenly; else the first.")
    ] = None,
    detail: Annotated[
        str | None, typer.Option(metavar="low|high|auto", help="At which size pictures are seen.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(metavar="N", help="Longest answer.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="0 is greedy.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="The same seed, the same answer.")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Served name.")] = None,
    url: UrlOption = None,
    key: KeyOption = None,
    json_: JsonOption = False,
) -> None:
    """Ask a question, about pictures, documents or neither.

    The answer streams to stdout; tokens, cost and time follow on stderr.

    Example: pixtral ask "What is in this picture?" --image holiday.jpg
    """
    with one_line_errors():
        system = target(url, key)
        asked = question.Question(
            text,
            tuple(image or ()),
            model or first_model(system.base_url, system.api_key),
            max_tokens,
            temperature,
            seed,
            tuple(document or ()),
            pages,
            frames,
            detail,
        )
        show = _ignore if json_ else _show
        answer = asyncio.run(question.ask(asked, system.base_url, system.api_key, show))
        typer.echo(answer.as_json() if json_ else "")
        typer.echo(f"\n{answer.accounts()}", err=True)
        if system.untrained:
            typer.echo(UNTRAINED.format(name=answer.model), err=True)


@app.command()
def doctor(
    model: ModelOption = None,
    port: PortOption = None,
    tp: RanksOption = None,
    config: ConfigOption = None,
    json_: JsonOption = False,
) -> None:
    """Check this machine and say what to mend.

    Of use before `up` and after; the exit code is 0 when all is well.

    Example: pixtral doctor --config ops/profiles/local.yaml
    """
    with one_line_errors():
        state = State.open()
        running = state.running()
        settings = resolve(Options(config, model, port, tp), bundled, state)
        findings = list(
            examination.examine(
                settings,
                temp=Path(tempfile.gettempdir()),
                running=running is not None and running.config == settings,
            )
        )
        if json_:
            typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
        else:
            typer.echo("\n".join(finding.line() for finding in findings))
        if not all(finding.ok for finding in findings):
            raise typer.Exit(1)


app.command("plan")(plan_command)
app.command("eval")(evaluate)


def _show(piece: str) -> None:
    typer.echo(piece, nl=False)


def _ignore(piece: str) -> None:
    del piece


@contextmanager
def _terminated_is_interrupted() -> Iterator[None]:
    """A service manager's SIGTERM stops the system just as Ctrl-C does."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
