"""Every command of teams, keys, prices and usage shows an example that parses."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from typer.testing import CliRunner

from ops import cli

_GROUPS = typer.main.get_command(cli.app)
COMMANDS = [
    (noun, verb)
    for noun in ("teams", "keys", "prices", "usage")
    for verb in _GROUPS.commands[noun].commands  # type: ignore[attr-defined]  # a group's own
]


def test_every_noun_has_the_verbs_it_promises():
    assert set(COMMANDS) == {
        *(("teams", verb) for verb in ("create", "list", "set-budget", "set-limits")),
        *(("keys", verb) for verb in ("create", "list", "revoke", "rotate")),
        *(("prices", verb) for verb in ("list", "add")),
        *(("usage", verb) for verb in ("report", "export", "reconcile", "refund", "request")),
        *(("usage", verb) for verb in ("close-month", "economics")),
    }


@pytest.mark.parametrize(("noun", "verb"), COMMANDS)
def test_the_example_parses(noun, verb):
    invoke = CliRunner().invoke
    text = " ".join(invoke(cli.app, [noun, verb, "--help"]).stdout.split())
    example = re.search(r"Example: pixtral (.+?) (?:Arguments|Options):", text)
    assert example is not None, text
    words = shlex.split(example.group(1))
    assert words[:2] == [noun, verb]
    assert invoke(cli.app, [*words, "--help"]).exit_code == 0


@pytest.mark.parametrize(("noun", "verb"), COMMANDS)
def test_it_can_be_scripted(noun, verb):
    text = CliRunner().invoke(cli.app, [noun, verb, "--help"]).stdout
    assert "--json" in text or (noun, verb) == ("usage", "export")
    assert "--url" in text
    assert "--key" in text
