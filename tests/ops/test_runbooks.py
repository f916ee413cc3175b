"""Each alert has a runbook, each runbook an alert, and what a runbook says to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import typer
import yaml

from ops.cli import app

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "ops/runbooks"
PAGES = sorted(RUNBOOKS.glob("Pixtral*.md"))
HEADINGS = (
    "What it means",
    "What users see",
    "What to look at",
    "What to do",
    "How to see that it is over",
    "When to ask for help",
)


def alerts() -> dict[str, str]:
    """Severity by name."""
    rules = yaml.safe_load((ROOT / "dashboards/rules/alerts.yml").read_text())
    return {
        rule["alert"]: rule["labels"]["severity"]
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }


def commands(text: str) -> list[str]:
    """Every ``pixtral …`` that is to be typed: lines of code blocks, and code within sentences."""
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`(pixtral [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return [line.partition(" #")[0] for line in (*lines, *inline) if line.startswith("pixtral ")]


def parse(line: str) -> None:
    """Raises click.UsageError where the command line has no such command, option or argument."""
    command: click.Command = typer.main.get_command(app)
    context, words = click.Context(command), shlex.split(line)[1:]
    while isinstance(command, click.Group):
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    if words != ["--help"]:
        command.make_context(context.info_name, words, parent=context.parent)


def test_each_alert_has_a_runbook_and_each_runbook_an_alert():
    assert {page.stem for page in PAGES} == set(alerts())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_runbook_says_all_that_is_asked_and_as_urgently_as_its_alert(page):
    text = page.read_text()
    assert tuple(re.findall(r"^## (.*)$", text, re.MULTILINE)) == HEADINGS
    pages = text.splitlines()[2].startswith("*Pages somebody")
    assert pages == (alerts()[page.stem] == "page")


@pytest.mark.parametrize("page", [*PAGES, RUNBOOKS / "README.md"], ids=lambda page: page.stem)
def test_every_command_and_link_of_a_runbook_exists(page):
    text = page.read_text()
    for line in commands(text):
        parse(line)
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "line", ["pixtral restart", "pixtral usage report --bye team", "pixtral teams set-budget TEAM"]
)
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises(click.UsageError):
        parse(line)
    assert commands(f"Do `{line}` now.\n```bash\n{line}   # so\n```") == [line + "  ", line]


def test_series_named_in_runbooks_exist():
    told = (ROOT / "serve_app/telemetry.py").read_text()
    for page in PAGES:
        for name in re.findall(r"(?:ray_)?(pixtral_[a-z_]+)", page.read_text()):
            assert f'"{name}"' in told, f"{page.name}: {name}"
