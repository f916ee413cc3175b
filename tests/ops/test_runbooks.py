"""Each alert has a runbook, each runbook an alert, and what a runbook says to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.core import TyperGroup

from ops.cli import app
from ops.runbooks import capture

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "ops/runbooks"
# The public one of its subclasses: typer keeps its own copy of click.
USAGE_ERROR = typer.BadParameter.__mro__[1]
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
    """Raises UsageError where the command line has no such command, option or argument."""
    command: Any = typer.main.get_command(app)
    context, words = None, shlex.split(line)
    # Parses its own options and leaves the next command's name and words.
    while True:
        if words[1:] == ["--help"]:
            return
        context = command.make_context(words[0], words[1:], parent=context)
        rest = [*context._protected_args, *context.args]
        if not isinstance(command, TyperGroup) or not rest:
            return
        name, command, words = command.resolve_command(context, rest)
        words = [str(name), *words]


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
    with pytest.raises(USAGE_ERROR):
        parse(line)
    assert commands(f"Do `{line}` now.\n```bash\n{line}   # so\n```") == [line + "  ", line]


def test_series_named_in_runbooks_exist():
    told = (ROOT / "serve_app/telemetry.py").read_text()
    for page in PAGES:
        for name in re.findall(r"(?:ray_)?(pixtral_[a-z_]+)", page.read_text()):
            assert f'"{name}"' in told, f"{page.name}: {name}"


def test_each_picture_is_small_shown_and_taken_by_the_script():
    taken = {RUNBOOKS / "images" / f"{picture.name}.png" for picture in capture.PICTURES}
    assert set((RUNBOOKS / "images").iterdir()) == taken
    shown = {
        (page.parent / target).resolve()
        for page in RUNBOOKS.glob("*.md")
        for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    }
    assert shown == taken
    for picture in taken:
        assert picture.stat().st_size <= capture.MAX_BYTES
