"""What the README names is there."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from ops.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(target):
    assert (ROOT / target).exists()


def test_commands_and_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", README)) <= targets
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]  # it is a group
    assert commands == set(re.findall(r"\| `pixtral ([a-z]+)` \|", README))
    assert set(re.findall(r"`pixtral ([a-z]+)", README)) <= commands


def test_the_table_of_profiles_is_whole():
    profiles = {file.stem for file in (ROOT / "ops" / "profiles").glob("*.yaml")}
    table = README.partition("| profile in")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)`", table, re.MULTILINE)) == profiles


def test_the_tree_names_what_is_there():
    tree = README.partition("## Where things are")[2].partition("## ")[0]
    names = re.findall(r"^(?:  )?([a-z_]+(?:/|\.py)|Makefile)", tree, re.MULTILINE)
    assert len(names) > 10
    for name in names:
        assert list(ROOT.glob(f"**/{name.rstrip('/')}")), name


def test_the_python_example_compiles():
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    compile(example, "README.md", "exec")
