"""A strict JSON schema of KubeRay's RayService, reduced to what our manifests use.

    python -m tests.ops.deploy.rayservice_schema /path/to/rayservice-crd.yaml.gz

writes ``rayservice.schema.json`` anew, from the custom resource definition of KubeRay's chart
(Apache-2.0). Strict: where the definition lists properties, no others are allowed, though
Kubernetes itself would drop them in silence. CEL rules are not evaluated.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

REDUCED = Path(__file__).with_name("rayservice.schema.json")
_KEPT = ("type", "enum", "minimum", "maximum", "pattern", "required", "format")


def strict(definition: Path) -> dict[str, Any]:
    """The whole definition's schema, strict."""
    # Libyaml's, where there is one: the definition has some thirty thousand lines.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resource = yaml.load(gzip.decompress(definition.read_bytes()), Loader=loader)
    (version,) = (each for each in resource["spec"]["versions"] if each["name"] == "v1")
    schema = _strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def reduced(schema: Mapping[str, Any], used: Iterable[Any]) -> dict[str, Any]:
    """Only what the ``used`` values have."""
    values = list(used)
    kept = {key: value for key, value in schema.items() if key not in ("properties", "items")}
    if "properties" in schema:
        names = {name for value in values for name in value}
        kept["properties"] = {
            name: reduced(inner, [value[name] for value in values if name in value])
            for name, inner in schema["properties"].items()
            if name in names
        }
    if "items" in schema:
        kept["items"] = reduced(schema["items"], [item for value in values for item in value])
    return kept


def _strict(node: Mapping[str, Any]) -> dict[str, Any]:
    if node.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    schema = {key: node[key] for key in _KEPT if key in node}
    if "properties" in node:
        schema["properties"] = {name: _strict(each) for name, each in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields"):
            schema["additionalProperties"] = False
    elif isinstance(node.get("additionalProperties"), Mapping):
        schema["additionalProperties"] = _strict(node["additionalProperties"])
    if "items" in node:
        schema["items"] = _strict(node["items"])
    return schema


def main(definition: Path) -> None:
    # Here, as rendering imports the product.
    from tests.ops.deploy.platforms import all_manifests

    used = [each for each in all_manifests() if each["kind"] == "RayService"]
    schema = reduced(strict(definition), used)
    REDUCED.write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
