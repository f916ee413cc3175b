"""Mistakes injected into the configurations, each of which something has to notice."""

from __future__ import annotations

import importlib
from collections import Counter

import pytest

from ops.problem import Problem
from ops.terraform import policy
from ops.terraform.runner import TREE
from tests.terraform.conftest import Roots
from tests.terraform.mutation import Mutation

TABLES = ("gcp", "aws", "azure", "workload")
_AT_LEAST = 12


def table(name: str) -> tuple[Mutation, ...]:
    """Empty where there is none: the count below then fails, by name."""
    try:
        module = importlib.import_module(f"tests.terraform.mutations_{name}")
    except ModuleNotFoundError:
        return ()
    mutations: tuple[Mutation, ...] = module.MUTATIONS
    return mutations


MUTATIONS = [(name, mutation) for name in TABLES for mutation in table(name)]


@pytest.mark.parametrize("name", TABLES)
def test_enough_mistakes_of_every_kind(name: str):
    mutations = table(name)

    assert len(mutations) >= _AT_LEAST
    assert Counter(each.name for each in mutations).most_common(1)[0][1] == 1
    assert {"validate", "policy"} <= {each.caught_by for each in mutations}


@pytest.mark.parametrize(
    "mutation", [pytest.param(each, id=f"{name}-{each.name}") for name, each in MUTATIONS]
)
def test_the_mistake_is_caught(roots: Roots, mutation: Mutation):
    root = f"environments/{mutation.root}"
    ready = roots[root]
    with roots.tree.mutated(mutation.file, mutation.old, mutation.new):
        if mutation.caught_by == "validate":
            told = "\n".join(ready.validate())
        elif mutation.caught_by == "test":
            told = "\n".join(_tested(roots, mutation))
        else:
            told = _refused(roots, root)

    # Terraform breaks its lines where the text happens to reach.
    assert " ".join(mutation.says.split()) in " ".join(told.split())


def _tested(roots: Roots, mutation: Mutation) -> list[str]:
    """Only the files that could say it are run: a module's tests take seconds."""
    kind, name, *_ = mutation.file.split("/")
    assert kind == "modules", "only modules have tests of their own"
    module = roots[f"{kind}/{name}"]
    files = sorted(module.root.glob("tests/*.tftest.hcl"))
    able = [file for file in files if mutation.says in file.read_text()]
    return module.test(*(str(file.relative_to(module.root)) for file in able))


def _refused(roots: Roots, root: str) -> str:
    """What the policies, or a validation of variables before them, have against the plan."""
    try:
        plan = roots.plan_now(root)
    except Problem as problem:
        return str(problem)
    return "\n".join(str(each) for each in policy.violations(plan))


def test_the_tree_is_as_it_was(roots: Roots):
    for mutation in {each.file for _, each in MUTATIONS}:
        assert (roots.tree.path / mutation).read_text() == (TREE / mutation).read_text()
