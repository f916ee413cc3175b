"""Azure's own templates inside a plan: what they deploy never passes through the provider."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ops.terraform.plan import Plan, Resource

Properties = Mapping[str, Any]

_REDIS = "Microsoft.Cache/redisEnterprise"


def templates(plan: Plan) -> Iterator[tuple[Resource, str]]:
    """Each deployment with its template's text; without what is known only after the apply."""
    for deployment in plan.of("azurerm_resource_group_template_deployment"):
        text = deployment.get("template_content")
        if text:
            yield deployment, text


def redis_clusters(plan: Plan) -> Iterator[tuple[Resource, Properties]]:
    return _properties(plan, _REDIS)


def redis_databases(plan: Plan) -> Iterator[tuple[Resource, Properties]]:
    return _properties(plan, f"{_REDIS}/databases")


def _properties(plan: Plan, kind: str) -> Iterator[tuple[Resource, Properties]]:
    for deployment, text in templates(plan):
        for resource in json.loads(text).get("resources", []):
            if resource.get("type") == kind:
                yield deployment, resource.get("properties", {})
