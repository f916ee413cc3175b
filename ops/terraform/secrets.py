"""Policies: no secret is written where plans and states are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ops.terraform.arm import templates
from ops.terraform.plan import Plan, leaves
from ops.terraform.schemas import BlockSchema, NestedAttributes
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

# What providers read back from the cloud into the state, whatever the configuration says: type ->
# (the attributes, the setting that makes what they hold worthless or empty, its value). A test
# holds it against the schemas of all types in use. A type with "" must not be used at all.
READ_BACK: Mapping[str, tuple[tuple[str, ...], str, Any]] = {
    # Certificates of a local administrator, who is switched off: logins are Entra's.
    "azurerm_kubernetes_cluster": (
        ("kube_admin_config", "kube_admin_config_raw", "kube_config", "kube_config_raw"),
        "local_account_disabled",
        True,
    ),
    # Keys that exist, and that the account refuses.
    "azurerm_storage_account": (
        tuple(
            f"{which}_{what}"
            for which in ("primary", "secondary")
            for what in ("access_key", "connection_string", "blob_connection_string")
        ),
        "shared_access_key_enabled",
        False,
    ),
    "azurerm_managed_redis": (
        ("default_database.primary_access_key", "default_database.secondary_access_key"),
        "default_database.access_keys_authentication_enabled",
        False,
    ),
    "azurerm_redis_cache": (("primary_access_key", "secondary_access_key"), "", None),
    # The key of a client certificate that is not issued.
    "google_container_cluster": (
        ("master_auth.client_key",),
        "master_auth.client_certificate_config.issue_client_certificate",
        False,
    ),
    "google_redis_instance": (("auth_string",), "", None),
    "google_service_account_key": (("private_key",), "", None),
    "aws_iam_access_key": (("secret",), "", None),
}
_LISTS_KEYS = re.compile(r"list\w*(Keys|Secrets|Sas)\w*\(", re.IGNORECASE)


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


def read_back(plan: Plan) -> Iterator[Violation]:
    """Nor do providers bring one into the state that anybody could use."""
    rule = "secret read into the state"
    for kind, (attributes, path, wanted) in READ_BACK.items():
        for resource in plan.of(kind):
            if not path:
                yield Violation.of(resource, rule, f"brings {attributes[0]}: use another resource")
            elif resource.get(path) is not wanted:
                told = f"brings {attributes[0]} while {path} is {resource.get(path)}"
                yield Violation.of(resource, rule, told)
    for deployment, text in templates(plan):
        if found := _LISTS_KEYS.search(text):
            yield Violation.of(deployment, rule, f"its template calls {found[0]}")


def read_back_by(block: BlockSchema | NestedAttributes, path: str = "") -> Iterator[str]:
    """Attributes that a provider fills and that look like a secret, at any depth of ``block``."""
    for name, attribute in block.attributes.items():
        here = f"{path}{name}"
        secret = attribute.sensitive or bool(_SECRET.search(name))
        if attribute.computed and not attribute.optional and secret:
            yield here
        if attribute.nested is not None:
            yield from read_back_by(attribute.nested, f"{here}.")
    if isinstance(block, BlockSchema):
        for name, nested in block.blocks.items():
            yield from read_back_by(nested.block, f"{path}{name}.")


def _is_secret(path: str, value: Any) -> bool:
    # "database.password" and "passwords[0]": the last name that is no index.
    name = re.sub(r"\[\d+\]", "", path).rpartition(".")[2].lower()
    return _spoken(value) and bool(_SECRET.search(name)) and not _HARMLESS.search(name)


def _spoken(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _any(flags: Any) -> bool:
    return any(flag is True for _, flag in leaves(flags))
