"""Pools of nodes: each rule on a pool that breaks it in every cloud, and on it mended."""

from __future__ import annotations

from typing import Any

import pytest

from tests.terraform.fragments import change, rules


def google_pool(most: int | None = 4, taint: str = "nvidia.com/gpu", **node: Any) -> Any:
    values = {
        "autoscaling": [{"total_max_node_count": most}],
        "network_config": [{"enable_private_nodes": True}],
        "node_config": [
            {
                "machine_type": "a2-ultragpu-4g",
                "taint": [{"key": taint, "value": "present", "effect": "NO_SCHEDULE"}],
                "labels": {"pixtral.ai/tier": "decoder"},
                **node,
            }
        ],
    }
    return change("google_container_node_pool", values)


def aws_pool(most: int | None = 4, taint: str = "nvidia.com/gpu", spot: bool = False) -> Any:
    values = {
        "instance_types": ["p4de.24xlarge"],
        "scaling_config": [{"max_size": most}],
        "taint": [{"key": taint, "value": "present", "effect": "NO_SCHEDULE"}],
        "labels": {"pixtral.ai/tier": "decoder"},
        "capacity_type": "SPOT" if spot else "ON_DEMAND",
        "launch_template": [{"id": "lt-1"}],
    }
    return change("aws_eks_node_group", values)


def azure_pool(most: int | None = 4, taint: str = "nvidia.com/gpu", spot: bool = False) -> Any:
    values = {
        "vm_size": "Standard_ND96amsr_A100_v4",
        "auto_scaling_enabled": True,
        "max_count": most,
        "node_taints": [f"{taint}=present:NoSchedule"],
        "node_labels": {"pixtral.ai/tier": "decoder"},
        "priority": "Spot" if spot else "Regular",
        "node_public_ip_enabled": False,
        "host_encryption_enabled": True,
    }
    return change("azurerm_kubernetes_cluster_node_pool", values)


@pytest.mark.parametrize("pool", [google_pool, aws_pool, azure_pool])
def test_gpu_pools_are_bounded_and_fenced(pool: Any):
    assert rules(pool()) == set()
    assert rules(pool(most=None)) == {"unbounded pool"}
    assert rules(pool(most=1000)) == {"unbounded pool"}
    assert rules(pool(taint="example.com/else")) == {"GPU pool without taint"}


@pytest.mark.parametrize(
    "pool",
    [
        google_pool(spot=True),
        google_pool(preemptible=True),
        aws_pool(spot=True),
        azure_pool(spot=True),
    ],
)
def test_a_decoder_is_never_spot(pool: Any):
    assert rules(pool) == {"spot decoder"}


def test_gpu_pools_together_keep_the_bound():
    bound = {"platform": {"after": {"gpu_nodes_max": 6, "ingress": {"class": "gce-internal"}}}}
    assert rules(google_pool(3), google_pool(3), outputs=bound) == set()
    assert rules(google_pool(3), google_pool(4), outputs=bound) == {"unbounded pool"}


def test_a_bound_by_zone_counts_every_zone():
    pool = google_pool()
    pool["change"]["after"] |= {
        "autoscaling": [{"max_node_count": 12}],
        "node_locations": ["a", "b", "c"],
    }
    assert rules(pool) == {"unbounded pool"}
