"""What a plan may not contain, whichever cloud it is for; one rule a function.

The rules read a plan and know no configuration: what a variable's default, a module or a mistake
made of it is what they see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ops.terraform import access, dashboard, exposure, keeping, pools, secrets
from ops.terraform.plan import Plan
from ops.terraform.violation import Violation

RULES: tuple[Callable[[Plan], Iterable[Violation]], ...] = (
    exposure.public_ingress,
    exposure.public_addresses,
    exposure.public_control_plane,
    exposure.load_balancers,
    dashboard.dashboard,
    access.redis_login,
    access.instance_metadata,
    access.network_policies,
    pools.bounds,
    pools.taints,
    pools.spot_decoder,
    secrets.secrets,
    secrets.read_back,
    keeping.deletion_protection,
    keeping.encryption,
    keeping.public_buckets,
)


def violations(plan: Mapping[str, Any]) -> list[Violation]:
    """Everything that the rules have against ``plan`` (JSON of `terraform show -json`)."""
    read = Plan.read(plan)
    return [violation for rule in RULES for violation in rule(read)]
