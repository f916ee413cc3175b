"""The modules and `pixtral plan` speak of the same machines."""

from __future__ import annotations

import re

import pytest

from ops.planning.machines import MACHINES
from ops.terraform.runner import TREE

CLOUDS = {"gke": "gcp", "eks": "aws", "aks": "azure"}

_LINE = re.compile(r'^ +"([\w.-]+)" += \{ (.*) \}$', re.MULTILINE)
_NUMBER = re.compile(r"(gpus|cpu|memory_gib) = (\d+)")


def known(module: str) -> dict[str, dict[str, int]]:
    """machine -> its gpus, cpu and memory_gib, as the module's `machines` table says them."""
    texts = [file.read_text() for file in sorted((TREE / "modules" / module).glob("*.tf"))]
    rows = [row for text in texts for row in _LINE.findall(text)]
    said = {name: {key: int(value) for key, value in _NUMBER.findall(row)} for name, row in rows}
    return {name: numbers for name, numbers in said.items() if len(numbers) == 3}


@pytest.mark.parametrize(("module", "cloud"), CLOUDS.items())
def test_a_module_knows_the_machines_of_its_cloud(module: str, cloud: str):
    """A machine that only one of them knows cannot be planned for, or not be had."""
    ours = {
        name: {"gpus": each.gpus, "cpu": each.vcpus, "memory_gib": each.memory_gib}
        for name, each in MACHINES.items()
        if each.cloud == cloud
    }

    assert known(module) == ours
