"""`python -m ops.terraform`: the offline proof of the configurations under terraform/."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from ops.problem import Problem
from ops.terraform import bindings, platforms, policy, runner, schemas
from ops.terraform.ceiling import ceiling
from ops.terraform.runner import Terraform, Tree

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)

FULL = schemas.FOLDER / "full"


@app.command()
def check(root: Annotated[Path, typer.Argument(help="A root or module under terraform/.")]) -> None:
    """Format, validate, test and plan one root, offline, and hold the policies against the plan.

    Example: python -m ops.terraform check terraform/environments/gcp-dev/cluster
    """
    folder = root.resolve()
    tree = next((each for each in folder.parents if each.name == "terraform"), None)
    if tree is None:
        raise Problem(f"{root} is not below a folder named terraform")
    # The full schemas, where they have been extracted, also know types that nobody uses yet.
    known = schemas.providers(FULL if FULL.is_dir() else schemas.FOLDER)
    with (
        runner.providers(known) as environment,
        tempfile.TemporaryDirectory(prefix="pixtral-terraform-") as work,
    ):
        copy = Tree.copied(tree, Path(work))
        wrong = _wrong(Terraform(copy.path / folder.relative_to(tree), environment))
    for each in wrong:
        print(each)
    if wrong:
        raise typer.Exit(1)
    print(f"{root}: nothing wrong")


@app.command()
def extract(
    provider: Annotated[
        list[str] | None, typer.Argument(help="Which providers; all without one.")
    ] = None,
) -> None:
    """Rebuild the full schemas from the published bindings (a few minutes, 250 MB from PyPI).

    Example: python -m ops.terraform extract helm kubernetes
    """
    for name in provider or sorted(bindings.PUBLISHED):
        if name not in bindings.PUBLISHED:
            raise Problem(f"{name} is none of {', '.join(sorted(bindings.PUBLISHED))}")
        with tempfile.TemporaryDirectory(prefix="pixtral-bindings-") as wheels:
            known = bindings.extracted(name, bindings.downloaded(name, Path(wheels)))
        schemas.save(known, FULL / f"{name}.json.gz")
        types = f"{len(known.resources)} resources, {len(known.data)} data sources"
        print(f"{name} {known.version}: {types}")


@app.command()
def prune() -> None:
    """Cut the full schemas down to the types that terraform/ uses, and write those to be committed.

    Example: python -m ops.terraform prune
    """
    full = schemas.providers(FULL)
    used = schemas.used_types(runner.TREE)
    if unknown := schemas.missing(used, full):
        raise Problem(f"no provider has {', '.join(unknown)}")
    for name, known in full.items():
        schemas.save(schemas.pruned(known, used), schemas.FOLDER / f"{name}.json")
    print(f"{len(used)} types kept in {schemas.FOLDER}")


@app.command(name="ceiling")
def show_ceiling() -> None:
    """Plan every cluster with its example variables and print the most that its nodes can cost.

    Example: python -m ops.terraform ceiling
    """
    with (
        runner.providers() as environment,
        tempfile.TemporaryDirectory(prefix="pixtral-terraform-") as work,
    ):
        copy = Tree.copied(runner.TREE, Path(work))
        for folder in sorted(copy.path.glob("environments/*/cluster")):
            terraform = Terraform(folder, environment)
            terraform.init()
            plan = terraform.plan(Path(runner.VARIABLES))
            print(f"{folder.parent.name:<12}{ceiling(plan).as_text()}")


@app.command(name="platforms")
def write_platforms() -> None:
    """Plan every cluster and write its output as the workload's example.platform.json anew.

    Example: python -m ops.terraform platforms && python -m ops.deploy.examples
    """
    with (
        runner.providers() as environment,
        tempfile.TemporaryDirectory(prefix="pixtral-terraform-") as work,
    ):
        copy = Tree.copied(runner.TREE, Path(work))
        for folder in sorted(copy.path.glob("environments/*/cluster")):
            terraform = Terraform(folder, environment)
            terraform.init()
            plan = terraform.plan(Path(runner.VARIABLES))
            file = platforms.example_file(runner.TREE / folder.relative_to(copy.path))
            file.write_text(
                platforms.as_text(platforms.described(plan, json.loads(file.read_text())))
            )
            print(f"wrote {file.relative_to(runner.TREE)}")


def _wrong(terraform: Terraform) -> list[str]:
    """Stops at the first step that fails: what follows would repeat it."""
    if unformatted := terraform.unformatted():
        return [f"terraform fmt would change {name}" for name in unformatted]
    terraform.init()
    if errors := terraform.validate():
        return errors
    if (terraform.root / "tests").is_dir() and (failures := terraform.test()):
        return failures
    if (terraform.root / runner.VARIABLES).is_file():
        plan = terraform.plan(Path(runner.VARIABLES))
        return [str(each) for each in policy.violations(plan)]
    return []


if __name__ == "__main__":
    try:
        app()
    except Problem as problem:
        sys.exit(str(problem))
