"""Every environment as committed: formatted, valid, planned, and nothing against its plan."""

from __future__ import annotations

import json
import re

import pytest

from ops.terraform import policy, schemas
from ops.terraform.ceiling import ceiling
from ops.terraform.keeping import is_production
from ops.terraform.plan import Plan
from ops.terraform.runner import TREE, Terraform
from tests.terraform.conftest import PASSWORD, Roots

ENVIRONMENTS = [
    f"{cloud}-{stage}" for cloud in ("gcp", "aws", "azure") for stage in ("dev", "prod")
]
CLUSTERS = [f"environments/{name}/cluster" for name in ENVIRONMENTS]
ROOTS = [*CLUSTERS, *(f"environments/{name}/workload" for name in ENVIRONMENTS)]
MODULES = sorted(str(folder.relative_to(TREE)) for folder in TREE.glob("modules/*"))

_PIN = re.compile(r'source\s*=\s*"hashicorp/(\w+)"\s*version\s*=\s*"([^"]+)"')


def test_these_are_all_roots():
    assert sorted(ROOTS) == sorted(
        str(folder.relative_to(TREE)) for folder in TREE.glob("environments/*/*") if folder.is_dir()
    )


def test_formatted(terraform_environment):
    assert Terraform(TREE, terraform_environment).unformatted() == []


@pytest.mark.parametrize("root", ROOTS)
def test_valid(roots: Roots, root: str):
    assert roots[root].validate() == []


@pytest.mark.parametrize("module", MODULES)
def test_modules_own_tests_pass(roots: Roots, module: str):
    assert list((TREE / module / "tests").glob("*.tftest.hcl")), "a module without tests"
    assert roots[module].test() == []


@pytest.mark.parametrize("root", ROOTS)
def test_no_policy_is_violated(roots: Roots, root: str):
    plan = roots.plan(root)

    assert plan["complete"], "a part of the plan was put off: the policies did not see it"
    assert Plan.read(plan).resources
    assert [str(each) for each in policy.violations(plan)] == []


@pytest.mark.parametrize("root", [root for root in CLUSTERS if "/aws-" not in root])
def test_the_database_password_is_in_no_plan(roots: Roots, root: str):
    assert PASSWORD not in json.dumps(roots.plan(root))


@pytest.mark.parametrize("root", CLUSTERS)
def test_production_calls_itself_so(roots: Roots, root: str):
    """The rule on deletion protection goes by the labels."""
    assert is_production(Plan.read(roots.plan(root))) == ("-prod/" in root)


@pytest.mark.parametrize("root", CLUSTERS)
def test_the_cost_has_a_ceiling(roots: Roots, root: str, record_property):
    found = ceiling(roots.plan(root))

    record_property("told", f"{root}: {found.as_text()}")
    assert {line.tier for line in found.lines} >= {"head", "gateway", "preprocess", "decoder"}
    assert all(line.nodes <= 64 for line in found.lines)


@pytest.mark.parametrize("root", ROOTS)
def test_the_state_is_remote_and_its_place_left_to_the_operator(root: str):
    text = "\n".join(file.read_text() for file in (TREE / root).glob("*.tf"))
    kind = {"gcp": "gcs", "aws": "s3", "azure": "azurerm"}[root.split("/")[1].partition("-")[0]]

    assert f'backend "{kind}"' in text
    assert not re.search(r"\b(bucket|storage_account_name)\s*=\s*\"", _backend(text))
    assert list((TREE / root).glob("*.tfbackend")), "no example of the backend's settings"


def test_every_version_is_pinned_to_the_schema_it_was_checked_against():
    known = schemas.providers()
    files = [
        file for file in sorted(TREE.rglob("*.tf")) if "required_providers" in file.read_text()
    ]

    assert {folder.parent for folder in files} >= {TREE / each for each in (*ROOTS, *MODULES)}
    for file in files:
        text = file.read_text()
        assert 'required_version = ">= 1.11, < 2.0"' in text, file
        pins = _PIN.findall(text)
        assert pins, file
        for provider, version in pins:
            assert version == f"= {known[provider].version}", file


def test_only_modules_of_our_own_and_nothing_runs_locally():
    for file in sorted(TREE.rglob("*.tf")):
        text = file.read_text()
        sources = re.findall(r'^  source\s*=\s*"([^"]+)"', text, re.MULTILINE)
        assert all(source.startswith("../") for source in sources), file
        assert "local-exec" not in text, file
        assert "null_resource" not in text, file


def _backend(text: str) -> str:
    found = re.search(r'backend "\w+" \{(.*?)\}', text, re.DOTALL)
    return found[1] if found else ""
