"""``pixtral bench engine|vision|pictures|serve-hop|gateway|all``: measure, print tables, exit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Measure the system on this machine. Nothing else should be running.")


@app.command("serve-hop")
def serve_hop() -> None:
    """What Ray Serve costs a request under different settings (about two minutes).

    Example: pixtral bench serve-hop
    """
    from ops.bench import serve_hop as bench

    _table(bench.run())


@app.command("engine")
def engine(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SCENARIO", help="Only this one; may be given several times."),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Of each side.")] = 2,
    quick: Annotated[
        bool, typer.Option(help="Once each and shorter: to see that it runs.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")
    ] = None,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw them there, as SVG.")
    ] = None,
) -> None:
    """The engine beside transformers on the same weights and the machine's own limits (about
    twelve minutes). Exits with 1 when their tokens differ; a missed goal is only told.

    Example: pixtral bench engine --json engine.json --plot engine.svg
    """
    from ops.bench.engine import lab as bench
    from ops.bench.engine.model import pinned
    from ops.bench.engine.plot import svg
    from ops.bench.engine.report import Report
    from ops.bench.engine.run import QUICK, Budget, TokensDifferError

    names = _known(only, bench.SCENARIOS)

    def keep(report: Report) -> None:
        if json_file is not None:
            json_file.write_text(report.as_json(), encoding="utf-8")
        if plot_file is not None:
            plot_file.write_text(svg(report.as_dict()), encoding="utf-8")

    budget = replace(QUICK if quick else Budget(), threads=threads, say=_progress())
    budget.say("the model")
    try:
        report = bench.measure(bench.Lab(pinned(), budget), names, keep)
    except TokensDifferError as error:
        print(f"tokens differ: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(report.as_markdown(), end="")


@app.command("vision")
def vision(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SHAPE", help="Only this one; may be given several times."),
    ] = None,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Of each side.")] = 2,
    quick: Annotated[bool, typer.Option(help="Once each and fewer: to see that it runs.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")
    ] = None,
) -> None:
    """Pictures of mixed sizes in packed passes beside transformers one at a time (two minutes).
    Exits with 1 when features differ; a missed goal is only told.

    Example: pixtral bench vision --json vision.json
    """
    from ops.bench import vision as bench

    names = tuple(only or bench.SHAPES)
    if unknown := set(names) - set(bench.SHAPES):
        known = ", ".join(bench.SHAPES)
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {known}")
    budget = replace(bench.QUICK if quick else bench.Budget(), threads=threads, say=_progress())
    try:
        results = bench.run(names, budget)
    except bench.FeaturesDifferError as error:
        print(f"features differ: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    if json_file is not None:
        json_file.write_text(bench.as_json(results, threads), encoding="utf-8")
    print(bench.as_markdown(results, threads), end="")


@app.command("gateway")
def gateway(
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="SCENARIO", help="Only this one; may be given several times."),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Of each round of a load.")] = 8.0,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="Of each load.")] = 5,
) -> None:
    """The whole system without a model beside bare Ray Serve (about seven minutes).

    Example: pixtral bench gateway --only paced --rounds 3
    """
    from ops.bench import gateway as bench

    names = _known(only, bench.SCENARIOS)
    _table(bench.run(bench.Plan(seconds, rounds, names)))


@app.command("pictures")
def pictures(
    flood: Annotated[
        bool, typer.Option(help="Also text's latency while pictures flood the whole system.")
    ] = True,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures there.")
    ] = None,
) -> None:
    """Decoding and cutting photographs beside mistral-common and transformers (about three
    minutes). Exits with 1 when ours differ from mistral-common's; a missed goal is only told.

    Example: pixtral bench pictures --json pictures.json
    """
    from ops.bench import picture_flood
    from ops.bench import pictures as bench

    try:
        rows = bench.run()
    except bench.OutputDiffersError as error:
        print(f"patches differ: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    _table(rows)
    flooded = picture_flood.run() if flood else None
    if flooded is not None:
        _table([flooded])
    if json_file is not None:
        json_file.write_text(bench.as_json(rows, flooded), encoding="utf-8")


@app.command("all")
def everything() -> None:
    """Every measurement, one after the other.

    Example: pixtral bench all
    """
    engine(None, 2, False, None, None)
    vision(None, 2, False, None)
    serve_hop()
    gateway(None, 8.0, 5)
    pictures(True, None)


def _known(only: Sequence[str] | None, scenarios: Collection[str]) -> tuple[str, ...]:
    """Raises typer.BadParameter."""
    names = tuple(only or scenarios)
    if unknown := {*names} - {*scenarios}:
        known = ", ".join(scenarios)
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: there are {known}")
    return names


def _progress() -> Callable[[str], None]:
    """Says on stderr what is measured next, and when."""
    started = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - started:6.0f} s  {what}", file=sys.stderr, flush=True)

    return say


def _table(rows: list[Any]) -> None:
    names = [field.name for field in fields(rows[0])]
    print("| " + " | ".join(name.replace("_", " ") for name in names) + " |")
    print("|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(_cell(getattr(row, name)) for name in names) + " |")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    app()
