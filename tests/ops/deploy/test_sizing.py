"""Whatever the machines: pods fit their nodes, and shared memory fits its pod."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops.deploy.platform import Platform
from ops.deploy.sizing import GIB, SHM_BEYOND_STORE, pod_size
from ops.problem import Problem
from serve_app.config import load_config
from tests.ops.deploy.platforms import described

TIERS = ("head", "gateway", "preprocess", "vision", "decoder")


@given(
    tier=st.sampled_from(TIERS),
    cpu=st.integers(2, 256),
    memory_gib=st.integers(1, 4000),
    groups=st.sampled_from((1, 2, 4)),
    store=st.integers(80 * 2**20, 400 * GIB),
    nodes=st.tuples(st.integers(0, 5), st.integers(0, 5)),
)
def test_a_pod_is_its_part_of_a_node_and_shared_memory_lies_within(
    tier, cpu, memory_gib, groups, store, nodes
):
    values = described("gcp-prod")
    groups = groups if tier == "decoder" else 0
    values["pools"][tier] |= {
        "cpu": cpu,
        "memory_gib": memory_gib,
        "groups_per_node": groups,
        "min_nodes": nodes[0],
        "max_nodes": 1 + sum(nodes),
    }
    config = load_config(None, {"model.path": "m", "ray.object_store_bytes": store})
    try:
        size = pod_size(config, Platform.model_validate(values), tier)
    except Problem:
        # Refused only where a pod's part is really small.
        assert memory_gib / max(groups, 1) < 8
        return
    pods = max(groups, 1)
    assert pods * size.memory < memory_gib * GIB
    assert pods * size.cpu < cpu
    assert size.shm == size.object_store + SHM_BEYOND_STORE
    assert size.shm + GIB <= size.memory
    assert size.object_store <= store
    # Whole mebibytes, as the manifest says them.
    assert size.memory % 2**20 == 0
    assert size.pods == (nodes[0] * pods, (1 + sum(nodes)) * pods)
    assert 1 <= size.ray_cpus <= max(size.cpu, 1)


def test_a_store_that_ray_would_refuse_is_refused_here():
    values = described("gcp-prod")
    values["pools"]["head"]["memory_gib"] = 3.5
    with pytest.raises(Problem, match="n2-standard-8 is too small"):
        pod_size(load_config(None, {"model.path": "m"}), Platform.model_validate(values), "head")
