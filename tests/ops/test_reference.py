"""The generated pages are those of the code, and every command shows an example that parses."""

import os
import shlex
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from ops import cli, reference
from ops.config_keys import MEANINGS
from serve_app.config import Config

COMMANDS = dict(reference.walk(typer.main.get_command(cli.app), ("pixtral",)))


@pytest.mark.parametrize("page", ["COMMANDS.md", "CONFIG.md"])
def test_the_page_is_up_to_date(page):
    text = reference.pages()[reference.FOLDER / page]
    file = reference.FOLDER / page
    assert file.read_text() == text, "run `python -m ops.reference`"


def test_the_whole_tree_is_walked():
    names = {" ".join(words[1:]) for words in COMMANDS}
    assert {"up", "status", "plan", "weights fetch", "usage report", "deploy render"} <= names
    assert all(f"## {name}\n" in reference.commands() for name in names)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_that_parses(words):
    shown = reference.example(COMMANDS[words])
    assert shown is not None, "its docstring ends with no Example: pixtral …"
    asked = shlex.split(shown)
    assert tuple(asked[: len(words)]) == words
    command = COMMANDS[words]
    # Parsed, not run: a missing argument, an unknown option or a bad choice raises here.
    with command.make_context(words[-1], asked[len(words) :], resilient_parsing=False):
        pass
    helped = CliRunner().invoke(cli.app, [*words[1:], "--help"])
    assert helped.exit_code == 0


def test_every_key_of_the_config_is_explained_once():
    assert set(reference.sections()) == set(Config.model_fields)
    keys = [
        f"{name}.{key}"
        for name, section in reference.sections().items()
        for key, _, _ in reference.keys(section, None)
    ]
    assert len(keys) == len(set(keys)) > 80
    for key in keys:
        assert reference.meaning(key), key
    listed = {
        f"{name}.{key}"
        for name, section in reference.sections().items()
        for key in reference.attributes(section)
    }
    assert set(MEANINGS) | listed == set(keys), "a meaning of a key that is gone"
    assert not set(MEANINGS) & listed, "explained twice"


def test_a_key_tells_its_default_bounds_and_type():
    page = reference.config()
    assert "| `port` | whole number | `8000` | ≥ 1, ≤ 65,535 | Of the REST API. |" in page
    assert "| `autoscaling.target_ongoing_requests` | number | `128.0` | > 0 |" in page
    assert "| `device` | cpu or cuda | `cpu` |" in page
    assert "| `path` | path | required |" in page


def test_a_shell_completes():
    """As bash asks: the words so far, and which of them is being typed."""
    asked = {"_PIXTRAL_COMPLETE": "complete_bash", "COMP_WORDS": "pixtral weights fe"}
    found = subprocess.run(
        [sys.executable, "-c", "from ops.cli import app; app(prog_name='pixtral')"],
        env=os.environ | asked | {"COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout.split() == ["fetch"], found.stderr
