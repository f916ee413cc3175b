"""Policy: no secret is written where plans and states are read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ops.terraform.plan import Plan, leaves
from ops.terraform.violation import Violation

RULE = "secret in the open"

_SECRET = re.compile(
    r"(^|_)(password|passwd|secret|token|auth_string|private_key|client_key|access_key|api_key"
    r"|connection_string|secret_data|secret_string|kube_config\w*|kube_admin_config\w*)$"
)
# Spoken of, not spoken: references to secrets and switches.
_HARMLESS = re.compile(r"(_secret_name|token_endpoint)$")
# Their whole content is secret; the write-only twins (data_wo) are the way.
_SECRET_MAPS = {"kubernetes_secret": ("data",), "kubernetes_secret_v1": ("data",)}


def secrets(plan: Plan) -> Iterator[Violation]:
    """Outputs and plain attributes hold no secrets; write-only arguments and ephemeral variables do
    not show up in a plan at all."""
    for name, output in plan.outputs.items():
        if _any(output.sensitive):
            yield Violation(f"output.{name}", RULE, "is sensitive, and would be kept in the state")
        for path, value in leaves(output.value):
            if _is_secret(path, value):
                yield Violation(f"output.{name}", RULE, f"holds {path}")
    for resource in plan.resources:
        marked = {path for path, flag in leaves(resource.sensitive) if flag is True}
        for path, value in leaves(resource.values):
            hidden = any(
                path == each or path.startswith((f"{each}.", f"{each}[")) for each in marked
            )
            if _spoken(value) and (hidden or _is_secret(path, value)):
                yield Violation.of(resource, RULE, f"keeps {path} in the plan and the state")
        for argument in _SECRET_MAPS.get(resource.type, ()):
            if resource.get(argument):
                yield Violation.of(resource, RULE, f"keeps {argument} in the state")


def _is_secret(path: str, value: Any) -> bool:
    # "database.password" and "passwords[0]": the last name that is no index.
    name = re.sub(r"\[\d+\]", "", path).rpartition(".")[2].lower()
    return _spoken(value) and bool(_SECRET.search(name)) and not _HARMLESS.search(name)


def _spoken(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _any(flags: Any) -> bool:
    return any(flag is True for _, flag in leaves(flags))
