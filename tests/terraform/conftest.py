"""Terraform needs its binary; one set of providers and one copied tree serve every test."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ops.terraform import runner
from ops.terraform.runner import Terraform, Tree

# A write-only argument takes it, and no plan may hold it. Not on AWS, where RDS makes the password.
PASSWORD = "never-to-be-seen-in-a-plan-0123456789"

_TAKES_PASSWORD = re.compile(r"environments/(gcp|azure)-\w+/cluster")


class Roots:
    """Roots and modules of one copied tree, initialised when they are first asked for."""

    def __init__(self, tree: Tree, environment: Mapping[str, str]) -> None:
        self.tree = tree
        self._environment = environment
        self._ready: dict[str, Terraform] = {}
        self._plans: dict[str, dict[str, Any]] = {}

    def __getitem__(self, path: str) -> Terraform:
        """``path`` relative to terraform/."""
        if path not in self._ready:
            given = {"TF_VAR_database_password": PASSWORD} if _TAKES_PASSWORD.match(path) else {}
            root = Terraform(self.tree.path / path, {**self._environment, **given})
            root.init()
            self._ready[path] = root
        return self._ready[path]

    def plan(self, path: str) -> dict[str, Any]:
        """Of the tree as it is committed, with the root's example variables; made once."""
        if path not in self._plans:
            self._plans[path] = self.plan_now(path)
        return self._plans[path]

    def plan_now(self, path: str) -> dict[str, Any]:
        return self[path].plan(Path(runner.VARIABLES))


@pytest.fixture(scope="session")
def terraform_environment() -> Iterator[dict[str, str]]:
    if shutil.which("terraform") is None:
        pytest.skip(runner.NOT_INSTALLED)
    with runner.providers() as environment:
        yield environment


@pytest.fixture(scope="session")
def roots(terraform_environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Roots:
    tree = Tree.copied(runner.TREE, tmp_path_factory.mktemp("terraform"))
    return Roots(tree, terraform_environment)
