"""Schemas that refer to themselves: which of them a finite value fulfils. Standard library only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def ends(node: Mapping[str, Any], ending: set[str]) -> bool:
    """Whether a finite value fulfils a bound node, given the references that have one."""
    if "$ref" in node:
        return node["$ref"] in ending
    if "anyOf" in node:
        return any(ends(branch, ending) for branch in node["anyOf"])
    if len(_as_list(node.get("type", ()))) != 1:
        return True
    needed = [node["properties"][name] for name in node.get("required", ())]
    if node.get("minItems"):
        needed += node.get("prefixItems", [])[: node["minItems"]]
        if node["minItems"] > len(node.get("prefixItems", ())) and node.get("items"):
            needed.append(node["items"])
    return all(ends(part, ending) for part in needed)


def same_value(node: Mapping[str, Any], places: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """References that speak of the value itself, not of one within it."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        waiting += node.get("anyOf", ())
        reference = node.get("$ref")
        if reference is not None and reference not in found:
            found.add(reference)
            waiting.append(places[reference])
    return found


def parts(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A bound node and all within it, definitions left out."""
    yield node
    inner = [*node.get("properties", {}).values(), *node.get("anyOf", ())]
    inner += [*node.get("prefixItems", ()), node.get("items"), node.get("additionalProperties")]
    for part in inner:
        if isinstance(part, dict):
            yield from parts(part)


def _as_list(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
