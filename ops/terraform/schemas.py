"""Provider schemas as the proof keeps them: read, written, and cut to the types that are used.

A file is one provider's: its version and the wheel it was rebuilt from (with SHA-256), so that
anybody can rebuild it: `python -m ops.terraform extract`. How: bindings.py.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ops.problem import Problem

FOLDER = Path(__file__).resolve().parents[2] / "terraform" / "schemas"

# Terraform's own notation: "string", ["list", "string"], ["object", {"name": "string"}] …
AttributeType = Any
Nesting = Literal["single", "list", "set", "map"]

_TYPE_IN_USE = re.compile(r'^\s*(resource|data)\s+"(\w+)"\s+"', re.MULTILINE)
# Built into Terraform, never asked of a provider.
_BUILT_IN = frozenset({"terraform_data", "terraform_remote_state"})


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class NestedAttributes(_Model):
    nesting: Nesting
    attributes: dict[str, AttributeSchema] = Field(alias="attrs")


class AttributeSchema(_Model):
    type: AttributeType = None
    nested: NestedAttributes | None = None
    required: bool = False
    optional: bool = False
    computed: bool = False
    write_only: bool = False
    sensitive: bool = False


class NestedBlockSchema(_Model):
    nesting: Nesting
    block: BlockSchema
    min_items: int = Field(default=0, alias="min")
    max_items: int = Field(default=0, alias="max")


class BlockSchema(_Model):
    attributes: dict[str, AttributeSchema] = Field(default={}, alias="attrs")
    blocks: dict[str, NestedBlockSchema] = {}


class Wheel(_Model):
    """Where a schema came from."""

    name: str
    version: str
    sha256: str


class ProviderSchemas(_Model):
    version: str
    wheel: Wheel | None = None
    provider: BlockSchema
    resources: dict[str, BlockSchema]
    data: dict[str, BlockSchema]


def providers(folder: Path = FOLDER) -> dict[str, ProviderSchemas]:
    """Every provider's schemas in ``folder``, by provider name.

    Raises:
        Problem: there are none, or a file is not one.
    """
    files = sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")])
    if not files:
        raise Problem(f"no provider schemas in {folder}: make them with python -m ops.terraform")
    return {file.name.partition(".")[0]: load(file) for file in files}


def load(file: Path) -> ProviderSchemas:
    """Raises ``Problem`` for a file that holds no provider schemas."""
    packed = file.read_bytes()
    text = gzip.decompress(packed) if file.suffix == ".gz" else packed
    try:
        return ProviderSchemas.model_validate_json(text)
    except ValueError as error:
        raise Problem(f"{file} holds no provider schemas: {error}") from error


def save(schemas: ProviderSchemas, file: Path) -> None:
    """Written so that a diff shows which argument changed: sorted, one type a line."""
    plain = schemas.model_dump(by_alias=True, exclude_defaults=True)
    head = {key: plain[key] for key in ("version", "wheel", "provider") if key in plain}
    lines = [f'"{key}": {_compact(value)}' for key, value in head.items()]
    for kind in ("resources", "data"):
        types = [f'"{name}": {_compact(block)}' for name, block in sorted(plain[kind].items())]
        lines.append(f'"{kind}": {{\n' + ",\n".join(types) + "\n}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    packed = gzip.compress(text.encode(), mtime=0) if file.suffix == ".gz" else text.encode()
    file.write_bytes(packed)


def used_types(terraform: Path) -> set[tuple[str, str]]:
    """("resource" or "data", type) of every block in the configurations under ``terraform``."""
    return {
        (kind, name)
        for file in sorted(terraform.rglob("*.tf"))
        for kind, name in _TYPE_IN_USE.findall(file.read_text())
        if name not in _BUILT_IN
    }


def pruned(schemas: ProviderSchemas, used: set[tuple[str, str]]) -> ProviderSchemas:
    """Only the types in ``used``."""
    return schemas.model_copy(
        update={
            "resources": {k: v for k, v in schemas.resources.items() if ("resource", k) in used},
            "data": {k: v for k, v in schemas.data.items() if ("data", k) in used},
        }
    )


def missing(used: set[tuple[str, str]], known: Mapping[str, ProviderSchemas]) -> list[str]:
    """Types in ``used`` that no provider's schemas describe, for a person: "resource x_y"."""
    described = {
        (kind, name)
        for schemas in known.values()
        for kind, types in (("resource", schemas.resources), ("data", schemas.data))
        for name in types
    }
    return [f"{kind} {name}" for kind, name in sorted(used - described)]


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
