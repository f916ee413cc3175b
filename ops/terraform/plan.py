"""A plan's JSON (`terraform show -json`), as the policies read it.

What the cloud decides later is null in ``values`` and marked in ``unknown``; what the
configuration leaves out is null too, so a rule that wants a setting wants it said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_GONE = {"delete", "forget"}


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource instance as it will be.

    Attributes:
        address: with modules and keys, as Terraform prints it.
        block: the address without keys: one block of the configuration.
    """

    address: str
    block: str
    type: str
    values: Mapping[str, Any]
    unknown: Any
    sensitive: Any

    def get(self, path: str) -> Any:
        """The value at a dotted path; a block that may come once is reached without its index."""
        return at(self.values, path)

    def undecided(self, path: str) -> bool:
        """Whether the value at ``path`` is known only after the apply."""
        found = at(self.unknown, path)
        return found is True

    def unsettled(self, path: str) -> bool:
        """Whether anything at or below ``path`` is."""
        return any(flag is True for _, flag in leaves(at(self.unknown, path)))


@dataclass(frozen=True, slots=True)
class Output:
    value: Any
    sensitive: Any


@dataclass(frozen=True, slots=True)
class Plan:
    resources: tuple[Resource, ...]
    outputs: Mapping[str, Output]
    # block -> the blocks whose configuration names it, in the same module.
    _users: Mapping[str, frozenset[str]]

    @classmethod
    def read(cls, plan: Mapping[str, Any]) -> Plan:
        changes = [each for each in plan.get("resource_changes", ()) if _stays(each)]
        outputs = {
            name: Output(change.get("after"), change.get("after_sensitive"))
            for name, change in plan.get("output_changes", {}).items()
        }
        users: dict[str, set[str]] = {}
        for user, used in _references(plan.get("configuration", {}).get("root_module", {}), ""):
            users.setdefault(used, set()).add(user)
        return cls(
            tuple(_resource(each) for each in changes),
            outputs,
            {block: frozenset(names) for block, names in users.items()},
        )

    def of(self, *types: str) -> Iterator[Resource]:
        return (each for each in self.resources if each.type in types)

    def users(self, resource: Resource) -> tuple[Resource, ...]:
        """Planned resources whose configuration refers to ``resource``'s block."""
        blocks = self._users.get(resource.block, frozenset())
        return tuple(each for each in self.resources if each.block in blocks)


def at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(value, list):
            value = value[0] if value else None
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def blocks(value: Any) -> list[Mapping[str, Any]]:
    """A nested block's items, also where there are none or a single one."""
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, Mapping)]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted path, plain value) inside ``value``."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{index}]")
    else:
        yield path, value


def _stays(change: Mapping[str, Any]) -> bool:
    return change["mode"] == "managed" and not set(change["change"]["actions"]) <= _GONE


def _resource(change: Mapping[str, Any]) -> Resource:
    planned = change["change"]
    module = _without_keys(change.get("module_address", ""))
    plain = f"{change['type']}.{change['name']}"
    return Resource(
        address=change["address"],
        block=f"{module}.{plain}" if module else plain,
        type=change["type"],
        values=planned["after"] or {},
        unknown=planned.get("after_unknown"),
        sensitive=planned.get("after_sensitive"),
    )


def _without_keys(address: str) -> str:
    parts, depth = [], 0
    for character in address:
        depth += character == "["
        if not depth:
            parts.append(character)
        depth -= character == "]"
    return "".join(parts)


def _references(module: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """(user, used) for every reference between resource blocks of a module and those inside it."""
    for block in module.get("resources", ()):
        asked = {key: block[key] for key in ("expressions", "for_each_expression") if key in block}
        for path, value in leaves(asked):
            parts = str(value).split(".")
            if "references" in path and len(parts) >= 2:
                used = _without_keys(".".join(parts[:2]))
                yield prefix + block["address"], prefix + used
    for name, call in module.get("module_calls", {}).items():
        yield from _references(call.get("module", {}), f"{prefix}module.{name}.")
