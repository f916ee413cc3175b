"""``pixtral bench decode|serve-hop|gateway|all``: measure, print tables, exit."""

from __future__ import annotations

from dataclasses import fields
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


@app.command("decode")
def decode(
    threads: Annotated[int, typer.Option(metavar="N", help="Of each rank.")] = 2,
) -> None:
    """Decode speed beside transformers and the memory's limit (about two minutes).

    Example: pixtral bench decode --threads 2
    """
    from ops.bench import decode as bench

    _table(bench.run(threads))


@app.command("gateway")
def gateway(
    seconds: Annotated[float, typer.Option(metavar="S", help="Of each measurement.")] = 8.0,
) -> None:
    """The whole system without a model beside bare Ray Serve (about three minutes).

    Example: pixtral bench gateway --seconds 8
    """
    from ops.bench import gateway as bench

    _table(bench.run(seconds))


@app.command("all")
def everything() -> None:
    """Every measurement, one after the other.

    Example: pixtral bench all
    """
    decode()
    serve_hop()
    gateway()


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
