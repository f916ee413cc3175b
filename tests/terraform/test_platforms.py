"""The cluster's output, the example of it that workloads are planned with, what is rendered."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
import yaml

from ops.problem import Problem
from ops.terraform import platforms
from ops.terraform.openings import Network, is_open
from ops.terraform.plan import Plan
from ops.terraform.runner import TREE
from tests.terraform.conftest import Roots
from tests.terraform.test_environments import ENVIRONMENTS

# From where Google's load balancers come, beside their own subnet.
_HEALTH_CHECKS = {"35.191.0.0/16", "130.211.0.0/22"}


def example(environment: str) -> dict[str, Any]:
    file = TREE / "environments" / environment / "workload" / "example.platform.json"
    values: dict[str, Any] = json.loads(file.read_text())
    return values


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_example_is_what_the_cluster_would_say(roots: Roots, environment: str):
    committed = example(environment)
    plan = roots.plan(f"environments/{environment}/cluster")

    anew = platforms.described(plan, committed)
    assert anew == committed, (
        "run python -m ops.terraform platforms, then python -m ops.deploy.examples"
    )


def test_what_the_cloud_decides_needs_a_stand_in():
    change = {"after": {"redis": {"port": 1}}, "after_unknown": {"redis": {"host": True}}}
    plan = {"output_changes": {"platform": change}}

    given = {"redis": {"host": "stand-in", "port": 2}}
    assert platforms.described(plan, given) == {"redis": {"port": 1, "host": "stand-in"}}
    with pytest.raises(Problem, match=r"platform\.redis\.host"):
        platforms.described(plan, {})


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_gateways_let_in_their_load_balancer_and_nobody_else(roots: Roots, environment: str):
    plan = roots.plan(f"environments/{environment}/cluster")
    sources = plan["output_changes"]["platform"]["after"]["ingress"]["source_cidrs"]
    own = _subnets(Plan.read(plan))

    assert sources
    for source in sources:
        network = ipaddress.ip_network(source)
        inside = any(network.subnet_of(each) for each in own)  # type: ignore[arg-type]
        assert inside or source in _HEALTH_CHECKS
        assert not is_open(source)

    manifests = TREE / "environments" / environment / "workload" / "example.manifests.yaml"
    (rest,) = (
        each
        for each in yaml.safe_load_all(manifests.read_text())
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "pixtral-rest"
    )
    (rule,) = rest["spec"]["ingress"]
    assert [each["ipBlock"]["cidr"] for each in rule["from"]] == sources
    assert [each["port"] for each in rule["ports"]] == [8000]


def _subnets(plan: Plan) -> list[Network]:
    ranges: list[str] = [each.get("cidr_block") for each in plan.of("aws_subnet")]
    ranges += [each.get("ip_cidr_range") for each in plan.of("google_compute_subnetwork")]
    for subnet in plan.of("azurerm_subnet"):
        ranges += subnet.get("address_prefixes")
    return [ipaddress.ip_network(each) for each in ranges]
