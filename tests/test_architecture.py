"""The shape of the code, enforced: which way imports point, who may know what, how long a file is.

ops → serve_app → shards, one way.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "serve_app", "ops")
LINE_CEILING = 400

# package -> top-level modules it must not import, wherever the import stands
FORBIDDEN = {
    "shards": {"serve_app", "ops", "ray", "fastapi", "starlette", "uvicorn", "aiohttp", "httpx"},
    "serve_app": {"ops", "typer", "rich"},
    "ops": set(),
}


# They decide and describe; nothing here may need an array or a device.
def sources(*folders: str) -> list[Path]:
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def imports(file: Path) -> Iterator[str]:
    """Dotted names of every module ``file`` imports at run time."""
    tree = ast.parse(file.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports here are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package):
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in sources(package)
        for name in imports(file)
        if name.partition(".")[0] in FORBIDDEN[package]
    ]
    assert wrong == []


def test_modules_that_promise_it_need_only_the_standard_library():
    promised = [
        file
        for file in sources(*PACKAGES)
        if "Standard library" in (ast.get_docstring(ast.parse(file.read_text())) or "")
    ]
    assert {"scheduler", "engine", "batch", "step", "prefix_cache", "fairness", "lockstep"} <= {
        file.stem for file in promised
    }
    wrong = [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in promised
        for module in imports(file)
        if module.partition(".")[0] not in {*sys.stdlib_module_names, *PACKAGES}
    ]
    assert wrong == []


def test_only_comm_touches_torch_distributed():
    users = {
        str(file.relative_to(ROOT))
        for file in sources(*PACKAGES)
        if any(name.startswith("torch.distributed") for name in imports(file))
    }
    assert users == {"shards/comm.py"}


def test_transport_rules_stay_in_one_file():
    users = {
        str(file.relative_to(ROOT))
        for file in sources("serve_app")
        if "_by_reference" in file.read_text()
    }
    assert users <= {"serve_app/serve_handles.py"}


def test_every_module_says_what_it_is():
    silent = [
        str(file.relative_to(ROOT))
        for file in sources(*PACKAGES)
        if file.read_text().strip() and ast.get_docstring(ast.parse(file.read_text())) is None
    ]
    assert silent == []


def test_no_file_grows_past_the_ceiling():
    long = {
        str(file.relative_to(ROOT)): lines
        for file in sources(*PACKAGES, "tests")
        if (lines := len(file.read_text().splitlines())) > LINE_CEILING
    }
    assert long == {}
