"""`pixtral weights`: a checkpoint's files, described, fetched and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ops.console import JsonOption, one_line_errors
from ops.memory import size
from ops.problem import Problem
from ops.weights.manifest import Part

app = typer.Typer(
    help="Weights: describe, fetch from a bucket, verify.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
FolderArgument = Annotated[Path, typer.Argument(metavar="DIR", help="A checkpoint's folder.")]


@app.command("manifest")
def make(folder: FolderArgument, json_: JsonOption = False) -> None:
    """Write manifest.json: every file with its size, its SHA-256 and whose tensors it holds.

    Upload the folder with it to the bucket that nodes fetch from. Give them the manifest's own
    SHA-256, which is printed, and they accept no other.

    Example: pixtral weights manifest /models/Pixtral-Large-Instruct-2411
    """
    from ops.weights import manifest
    from ops.weights.meter import metered

    with one_line_errors():
        if not folder.is_dir():
            raise Problem(f"there is no folder {folder}")
        with metered(_console()) as meter:
            meter.expect("reading", sum(f.stat().st_size for f in folder.iterdir() if f.is_file()))
            made = manifest.make(folder, meter.add)
        try:
            (folder / manifest.NAME).write_text(made.text())
        except OSError as error:
            raise Problem(f"{folder / manifest.NAME}: {error.strerror}") from error
        own = manifest.digest_of(made.text().encode())
        if json_:
            parts = {part.value: made.of(part).bytes for part in Part}
            described = {"files": len(made.files), "bytes": parts, "manifest_sha256": own}
            typer.echo(json.dumps(described, indent=2))
            return
        typer.echo(f"{len(made.files)} files, {size(made.bytes)}; SHA-256 of the manifest:\n{own}")
        for part in (Part.VISION, Part.TEXT):
            typer.echo(f"--part {part} fetches {size(made.of(part).bytes)}")


@app.command("fetch")
def fetch(
    uri: Annotated[
        str,
        typer.Argument(metavar="URI", help="gs://, s3://, az://account/container/… or file://."),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DEST", help="Appears when all of it is there and right.")
    ],
    part: Annotated[
        Part, typer.Option("--part", help="vision for nodes that only encode pictures.")
    ] = Part.ALL,
    parallel: Annotated[
        int, typer.Option(metavar="N", min=1, max=256, help="Reads at a time, of 16 MiB each.")
    ] = 16,
    manifest_sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="Accept no other manifest than this.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Where all is there, look at sizes only.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Fetch weights onto this machine: once, whole and checked.

    Several may run at a time for one DEST: one fetches, the others wait and verify. Whatever ends
    it, the next one goes on from there. Credentials are the machine's own (workload identity).

    Example: pixtral weights fetch gs://models/Pixtral-Large-Instruct-2411 /weights/pixtral-large
    """
    from ops.weights.fetch import Fetch, Told
    from ops.weights.meter import metered
    from ops.weights.source import open_source

    with one_line_errors(), metered(_console()) as meter:
        done = Fetch(
            source=open_source(uri),
            folder=folder.expanduser().absolute(),
            told=Told(meter.say, meter.expect, meter.add),
            part=part,
            parallel=parallel,
            manifest_sha256=manifest_sha256,
            quick=quick,
        ).run()
        if json_:
            what = {"folder": str(done.folder), "part": part.value, "bytes": done.manifest.bytes}
            typer.echo(json.dumps({**what, "fetched_bytes": done.fetched_bytes}, indent=2))
        else:
            typer.echo(
                f"{done.folder} is complete: {len(done.manifest.files)} files,"
                f" {size(done.manifest.bytes)}, of which {size(done.fetched_bytes)} were fetched"
                " now"
            )


@app.command("verify")
def verify(
    folder: FolderArgument,
    quick: Annotated[bool, typer.Option("--quick", help="Look at sizes only.")] = False,
    json_: JsonOption = False,
) -> None:
    """Check every file of a folder against its manifest; the exit code is 1 if one differs.

    Example: pixtral weights verify /weights/pixtral-large
    """
    from ops.weights import manifest
    from ops.weights.meter import metered
    from ops.weights.verify import faults

    with one_line_errors():
        there = manifest.read(folder)
        with metered(_console()) as meter:
            meter.expect("checking", there.bytes)
            bad = faults(folder, there, quick=quick, on_bytes=meter.add)
        if json_:
            typer.echo(json.dumps({"ok": not bad, "faults": list(bad.values())}, indent=2))
        elif not bad:
            how = "the size" if quick else "the checksum"
            typer.echo(f"{len(there.files)} files, {size(there.bytes)}: each has {how} it should")
        else:
            typer.echo("\n".join(bad.values()))
        if bad:
            raise typer.Exit(1)


def _console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)
