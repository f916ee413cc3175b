"""What a plan may cost at most, and what of a plan counts."""

from __future__ import annotations

from decimal import Decimal

from ops.terraform.ceiling import ceiling
from ops.terraform.plan import Plan
from tests.terraform.fragments import change, plan


def test_what_goes_away_is_not_judged():
    going = change("aws_eip", {})
    going["change"] |= {"actions": ["delete"], "after": None}
    assert Plan.read(plan(going)).resources == ()


def test_the_ceiling_is_nodes_times_price_and_names_what_has_none():
    inputs = {
        "decoder": {"machine_type": "p4de.24xlarge", "max_nodes": 2},
        "head": {"machine_type": "m7i.xlarge", "max_nodes": 3},
        "vision": {"machine_type": "p4de.24xlarge", "max_nodes": 0},
    }
    told = {"planned_values": {"outputs": {"cost_inputs": {"value": inputs}}}}

    found = ceiling(told)
    assert found.usd_per_hour == Decimal("54.894")
    assert found.unpriced == ("m7i.xlarge",)
    assert "3 m7i.xlarge" in found.as_text()
    assert ceiling(told, {"m7i.xlarge": Decimal(1)}).usd_per_hour == Decimal("57.894")
