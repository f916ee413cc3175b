"""One interface for three clouds: the workload and its operators do not care which one it is."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ops.terraform.runner import TREE
from tests.terraform.conftest import Roots

CLOUDS = {"gke": "gcp", "eks": "aws", "aks": "azure"}

_BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
_OPEN, _CLOSE = "([{", ")]}"


def declared(module: str, kind: str) -> dict[str, str]:
    """name -> its text, of every variable or output of the module."""
    files = sorted((TREE / "modules" / module).glob("*.tf"))
    found = [block for file in files for block in _BLOCK.findall(file.read_text())]
    return {name: body for which, name, body in found if which == kind}


def written_type(body: str) -> str:
    """The type as written, without spaces and comments: `map(object({…}))`."""
    _, _, rest = body.partition("type")
    text, depth = "", 0
    for line in rest.partition("=")[2].splitlines():
        plain = line.partition("#")[0].strip()
        text += re.sub(r"\s+", "", plain) + ("," if depth and plain[-1:] not in "({,[" else "")
        depth += sum(plain.count(each) for each in _OPEN) - sum(
            plain.count(each) for each in _CLOSE
        )
        if depth == 0:
            break
    return re.sub(r",(?=[})\]])", "", text).rstrip(",")


def shape(value: Any, unknown: Any) -> Any:
    """Keys all the way down, of what is known and of what the cloud decides later."""
    if isinstance(value, dict) or isinstance(unknown, dict):
        known, later = value or {}, unknown if isinstance(unknown, dict) else {}
        keys = sorted({*known, *later})
        return {key: shape(known.get(key), later.get(key)) for key in keys}
    return "value"


@pytest.mark.parametrize("module", [name for name in CLOUDS if name != "gke"])
def test_same_variables_of_the_same_types(module: str):
    ours, theirs = declared(module, "variable"), declared("gke", "variable")

    assert {name: written_type(body) for name, body in ours.items()} == {
        name: written_type(body) for name, body in theirs.items()
    }


@pytest.mark.parametrize("module", CLOUDS)
def test_the_password_is_ephemeral_and_sensitive(module: str):
    body = declared(module, "variable")["database_password"]

    assert re.search(r"^  ephemeral\s*= true$", body, re.MULTILINE)
    assert re.search(r"^  sensitive\s*= true$", body, re.MULTILINE)


@pytest.mark.parametrize("module", CLOUDS)
def test_same_outputs(module: str):
    assert declared(module, "output").keys() == {"platform", "cost_inputs"}


@pytest.mark.parametrize("module", [name for name in CLOUDS if name != "gke"])
def test_the_platform_has_the_same_shape(roots: Roots, module: str):
    ours, theirs = _platform(roots, CLOUDS[module]), _platform(roots, "gcp")

    assert ours.keys() == theirs.keys()
    for key in ("database", "redis"):
        assert ours[key] == theirs[key]
    for key in ("service_accounts", "pools"):
        assert ours[key].keys() == theirs[key].keys()
    assert ours["pools"]["decoder"].keys() == theirs["pools"]["decoder"].keys()
    assert ours["ingress"].keys() == theirs["ingress"].keys()
    assert ours["service_accounts"]["decoder"].keys() == {"name", "annotations", "labels"}


def _platform(roots: Roots, cloud: str) -> dict[str, Any]:
    change = roots.plan(f"environments/{cloud}-prod/cluster")["output_changes"]["platform"]
    found: dict[str, Any] = shape(change["after"], change["after_unknown"])
    return found


def test_types_are_read_whatever_the_spacing():
    body = "  type = object({\n    a = string # why\n    bc  = number\n  })\n  default = null\n"

    assert written_type(body) == "object({a=string,bc=number})"
