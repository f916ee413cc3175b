"""The clouds' machines that tiers run on: what they hold, and what they cost where that is known.

A price is None until an operator gives it (``pixtral plan --usd-per-hour MACHINE=PRICE``): what is
not known is asked for by name and never guessed. Prices are on demand, in US dollars an hour for
the whole machine, and go stale: ``source`` says from where and when. Shapes are the providers'
published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Cloud = Literal["gcp", "aws", "azure"]

_ASK = "no price is known here: give the one you pay"
_RECEIPTS = "datareceipts/data-receipts on GitHub, retrieved 2026-11-09, {region}; check it"
# A100 80GB reports 80 GiB. Cards with GDDR6 under ECC report about 22.5 of their 24 GB.
_A100_GIB = 80
_GDDR_GIB = 22


@dataclass(frozen=True, slots=True)
class Machine:
    """One type of machine of one cloud.

    Attributes:
        gpu: model of its GPUs, empty without any; ``gpu_memory_gib`` is of one.
        interconnect: how its GPUs reach each other.
        memory_gib: as published; Google's GB are GiB.
        usd_per_hour: of the whole machine; None where an operator must say it.
        source: of the price.
    """

    name: str
    cloud: Cloud
    gpus: int
    gpu: str
    gpu_memory_gib: int
    interconnect: str
    vcpus: int
    memory_gib: int
    usd_per_hour: Decimal | None
    source: str
    notes: str = ""


def _cpu(name: str, cloud: Cloud, vcpus: int, memory_gib: int) -> Machine:
    return Machine(name, cloud, 0, "", 0, "", vcpus, memory_gib, None, _ASK)


def _single(name: str, cloud: Cloud, gpu: str, vcpus: int, memory_gib: int) -> Machine:
    notes = "holds the vision tier, not a decoder group of Pixtral Large"
    return Machine(name, cloud, 1, gpu, _GDDR_GIB, "", vcpus, memory_gib, None, _ASK, notes)


_ALL = (
    Machine(
        *("a2-ultragpu-8g", "gcp", 8, "A100-80GB-SXM", _A100_GIB, "NVSwitch", 96, 1360, None, _ASK),
        notes="two groups of four ranks a node, or half of it is wasted",
    ),
    Machine(
        *("a2-ultragpu-4g", "gcp", 4, "A100-80GB-SXM", _A100_GIB, "NVLink", 48, 680, None, _ASK),
        notes="one group of four ranks a node",
    ),
    Machine(
        *("a2-ultragpu-2g", "gcp", 2, "A100-80GB-SXM", _A100_GIB, "NVLink", 24, 340, None, _ASK),
        notes="one group of two ranks a node (int8)",
    ),
    Machine(
        *("a2-ultragpu-1g", "gcp", 1, "A100-80GB-SXM", _A100_GIB, "", 12, 170, None, _ASK),
        notes="one group of Pixtral 12B",
    ),
    _single("g2-standard-4", "gcp", "L4", 4, 16),
    _single("g2-standard-8", "gcp", "L4", 8, 32),
    _single("g2-standard-16", "gcp", "L4", 16, 64),
    _cpu("n2-standard-4", "gcp", 4, 16),
    _cpu("n2-standard-8", "gcp", 8, 32),
    _cpu("n2-standard-16", "gcp", 16, 64),
    _cpu("n2-standard-32", "gcp", 32, 128),
    Machine(
        *("p4de.24xlarge", "aws", 8, "A100-80GB-SXM", _A100_GIB, "NVSwitch", 96, 1152),
        usd_per_hour=Decimal("27.447"),
        source=_RECEIPTS.format(region="us-east-1"),
        notes="two groups of four ranks a node, or half of it is wasted",
    ),
    _single("g6.2xlarge", "aws", "L4", 8, 32),
    _single("g6.4xlarge", "aws", "L4", 16, 64),
    _single("g5.2xlarge", "aws", "A10G", 8, 32),
    _cpu("m7i.xlarge", "aws", 4, 16),
    _cpu("m7i.2xlarge", "aws", 8, 32),
    _cpu("m7i.4xlarge", "aws", 16, 64),
    _cpu("m7i.8xlarge", "aws", 32, 128),
    Machine(
        *("Standard_ND96amsr_A100_v4", "azure", 8, "A100-80GB-SXM", _A100_GIB, "NVSwitch"),
        *(96, 1900, None, _ASK),
        notes="two groups of four ranks a node, or half of it is wasted",
    ),
    Machine(
        *("Standard_NC96ads_A100_v4", "azure", 4, "A100-80GB-PCIe", _A100_GIB),
        interconnect="PCIe (NVLink in pairs at most)",
        vcpus=96,
        memory_gib=880,
        usd_per_hour=Decimal("19.108"),
        source=_RECEIPTS.format(region="eastus"),
        notes="one group of four ranks a node; its ranks meet over PCIe: slower, measure it",
    ),
    Machine(
        *("Standard_NC24ads_A100_v4", "azure", 1, "A100-80GB-PCIe", _A100_GIB, "", 24, 220),
        usd_per_hour=None,
        source=_ASK,
        notes="one group of Pixtral 12B",
    ),
    _single("Standard_NV36ads_A10_v5", "azure", "A10", 36, 440),
    _cpu("Standard_D4s_v5", "azure", 4, 16),
    _cpu("Standard_D8s_v5", "azure", 8, 32),
    _cpu("Standard_D16s_v5", "azure", 16, 64),
    _cpu("Standard_D32s_v5", "azure", 32, 128),
)

MACHINES: Mapping[str, Machine] = {machine.name: machine for machine in _ALL}
