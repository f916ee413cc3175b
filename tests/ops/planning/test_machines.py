from decimal import Decimal

import pytest

from ops.planning.machines import MACHINES


def test_only_priced_where_there_is_a_source():
    """A price from nowhere would end up in somebody's budget."""
    priced = {name: each.usd_per_hour for name, each in MACHINES.items() if each.usd_per_hour}
    assert priced == {
        "p4de.24xlarge": Decimal("27.447"),
        "Standard_NC96ads_A100_v4": Decimal("19.108"),
    }
    for name, machine in MACHINES.items():
        assert ("2026-11-09" in machine.source) == (name in priced), name


@pytest.mark.parametrize("cloud", ["gcp", "aws", "azure"])
def test_every_cloud_has_decoders_a_small_gpu_and_plain_machines(cloud):
    ours = [each for each in MACHINES.values() if each.cloud == cloud]
    assert any(each.gpus >= 4 and each.gpu_memory_gib == 80 for each in ours)
    assert any(each.gpus == 1 and each.gpu_memory_gib == 22 for each in ours)
    assert any(each.gpus == 0 for each in ours)


def test_machines_are_found_by_their_own_names():
    assert all(name == machine.name for name, machine in MACHINES.items())
