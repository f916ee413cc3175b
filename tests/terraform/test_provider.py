"""What the provider without a cloud answers, and the real Terraform asking it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.problem import Problem
from ops.terraform import runner
from ops.terraform.provider import UNKNOWN, answered, planned_state
from ops.terraform.runner import Terraform, Tree
from ops.terraform.schemas import BlockSchema, ProviderSchemas

_THING = BlockSchema.model_validate(
    {
        "attrs": {
            "name": {"type": "string", "required": True},
            "id": {"type": "string", "computed": True},
            "size": {"type": "number", "optional": True},
            "password_wo": {"type": "string", "optional": True, "write_only": True},
        },
        "blocks": {
            "disk": {
                "nesting": "list",
                "max": 1,
                "block": {
                    "attrs": {"serial": {"type": "string", "optional": True, "computed": True}}
                },
            }
        },
    }
)
_FOUND = BlockSchema.model_validate(
    {
        "attrs": {
            "name": {"type": "string", "required": True},
            "ca_certificate": {"type": "string", "computed": True},
            "nodes": {"type": ["list", ["object", {"count": "number"}]], "computed": True},
        }
    }
)
_DEMO = ProviderSchemas(
    version="8.7.0",
    provider=BlockSchema(),
    resources={"google_thing": _THING},
    data={"google_thing": _FOUND},
)
_MAIN = """terraform {
  backend "gcs" {}
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "= 8.7.0"
    }
  }
}

variable "password" {
  type      = string
  ephemeral = true
}

data "google_thing" "found" {
  name = "found"
}

resource "google_thing" "this" {
  name        = "thing"
  password_wo = var.password

  disk {}
}

output "id" {
  value = google_thing.this.id
}

output "nodes" {
  value = data.google_thing.found.nodes[0].count
}
"""


def test_what_the_cloud_decides_is_unknown_at_every_depth():
    planned = planned_state(_THING, {"name": "x", "id": None, "disk": [{"serial": None}]})

    assert planned["id"] == planned["disk"][0]["serial"] == UNKNOWN
    assert planned["name"] == "x"


def test_what_is_known_already_stays_and_a_destroy_is_nothing():
    assert planned_state(_THING, {"id": "7", "disk": []})["id"] == "7"
    assert planned_state(_THING, None) is None


def test_write_only_values_are_dropped():
    assert planned_state(_THING, {"password_wo": "x"})["password_wo"] is None


def test_data_sources_answer_something_of_the_right_type():
    answer = answered("google_thing", _FOUND, {"name": "x", "ca_certificate": None, "nodes": None})

    assert answer["name"] == "x"
    assert answer["nodes"] == [{"count": 0}]
    assert isinstance(answer["ca_certificate"], str)


@pytest.fixture
def demo(terraform_environment: dict[str, str], tmp_path: Path) -> Iterator[Terraform]:
    source = tmp_path / "source"
    (source / "root").mkdir(parents=True)
    (source / "root" / "main.tf").write_text(_MAIN)
    (source / "root" / "example.tfvars").write_text('password = "hunter2-and-more"\n')
    with runner.providers({"google": _DEMO}) as environment:
        tree = Tree.copied(source, tmp_path / "work")
        root = Terraform(tree.path / "root", environment)
        root.init()
        yield root
    assert sorted(file.name for file in (source / "root").iterdir()) == [
        "example.tfvars",
        "main.tf",
    ]


def test_terraform_plans_with_it_and_keeps_no_password(demo: Terraform):
    assert demo.unformatted() == []
    assert demo.validate() == []
    plan = demo.plan(Path("example.tfvars"))

    (change,) = plan["resource_changes"]
    assert change["change"]["after_unknown"]["id"] is True
    assert "hunter2" not in json.dumps(plan)
    assert plan["output_changes"]["nodes"]["after"] == 0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name        = "thing"', 'nmae        = "thing"', "nmae"),
        ('name        = "thing"', "name        = [1]", "string required"),
        ("disk {}", "disk {}\n  disk {}", "Too many disk blocks"),
        ("google_thing.this.id", "google_thing.that.id", "undeclared resource"),
        ("password_wo = var.password", "size = var.password", "ephemeral"),
    ],
)
def test_terraform_refuses_by_it(demo: Terraform, old: str, new: str, says: str):
    tree = Tree(demo.root.parent)
    with tree.mutated("root/main.tf", old, new):
        told = " ".join(demo.validate())
        assert says in told
    assert demo.validate() == []


def test_a_mutation_that_hits_nothing_is_an_error(demo: Terraform):
    with (
        pytest.raises(Problem, match="0 times, not once"),
        Tree(demo.root.parent).mutated("root/main.tf", "no such text", ""),
    ):
        pass


def test_a_failing_plan_says_why(demo: Terraform):
    with pytest.raises(Problem, match="No value for required variable"):
        demo.plan()


def test_a_root_without_tests_proves_nothing(demo: Terraform):
    assert demo.test()


def test_without_the_binary_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Problem, match=r"developer\.hashicorp\.com"), runner.providers({}):
        pass
