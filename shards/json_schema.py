"""Which JSON schemas an answer can be bound to, and how large they may be. Standard library only.

A grammar that leaves out a rule of its schema would break a promise in silence, so what the
grammar's compiler does not enforce is refused by name, and so are schemas that no finite value
fulfils. Annotations pass. Checked before any work is spent: it takes time in proportion to the
schema's size, which is bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from shards.errors import RequestError
from shards.json_pattern import pattern_fault
from shards.json_recursion import ends, parts, same_value

BYTES_LIMIT = 64 * 1024
DEPTH_LIMIT = 32
NODES_LIMIT = 2000
PROPERTIES_LIMIT = 256
ENUM_LIMIT = 1000
DEFINITIONS_LIMIT = 100
LENGTH_LIMIT = 100_000
_DECIMALS_LIMIT = 6
_NUMBER_LIMIT = 2**53

_ANNOTATIONS = frozenset(
    {
        "title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly",
        "$schema", "$id", "$comment",
    }
)  # fmt: skip
_DEFINITIONS = frozenset({"$defs", "definitions"})
# Keyword → the type it speaks of, which is taken as meant where none is given.
_BINDING = {
    "properties": "object",
    "required": "object",
    "additionalProperties": "object",
    "items": "array",
    "prefixItems": "array",
    "minItems": "array",
    "maxItems": "array",
    "uniqueItems": "array",
    "minLength": "string",
    "maxLength": "string",
    "pattern": "string",
    "format": "string",
    "minimum": "number",
    "maximum": "number",
    "exclusiveMinimum": "number",
    "exclusiveMaximum": "number",
}
_FORMATS = frozenset({"date-time", "date", "time", "duration", "email", "uuid", "ipv6"})
_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_REFERENCE = re.compile(r"#|#/(\$defs|definitions)/([A-Za-z0-9_.-]+)")


def checked_schema(source: str, param: str, *, closed: bool) -> dict[str, Any]:
    """Read a schema and refuse what cannot be promised.

    Args:
        source: JSON text.
        param: the field that holds it, for errors.
        closed: objects that name their properties have no others, unless they say so themselves.

    Returns:
        the schema bound: without annotations, and each object says whether it may have properties
        beyond those it names.

    Raises:
        RequestError: naming ``param``, the place in the schema, and the keyword or limit.
    """
    if len(source.encode("utf-8", "surrogatepass")) > BYTES_LIMIT:
        raise RequestError(param, f"the schema is larger than {BYTES_LIMIT} bytes")
    try:
        root = json.loads(source)
    except (ValueError, RecursionError):
        raise RequestError(param, "the schema is not readable JSON, or nested too deeply") from None
    if not isinstance(root, dict):
        raise RequestError(param, "the schema must be an object")
    bound = _Reading(root, param, closed).bound()
    try:
        json.dumps(bound, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise RequestError(param, "text must be valid Unicode") from None
    return bound


def checked_arguments(source: str, param: str) -> dict[str, Any]:
    """The same for a function's arguments, which are an object that has no other properties.

    Raises:
        RequestError: as above, or it describes something else than an object.
    """
    root = schema = checked_schema(source, param, closed=True)
    # As many references as there are definitions, or they would have been found to be endless.
    while "$ref" in schema:
        schema = _target(root, schema["$ref"])
    if schema.keys() <= _DEFINITIONS:
        return {**root, "type": "object", "additionalProperties": True}
    if schema.get("type") != "object":
        raise RequestError(param, "the schema must be of type 'object'")
    return root


class _Reading:
    """One walk over a schema: counts, checks, and copies what binds."""

    def __init__(self, root: dict[str, Any], param: str, closed: bool) -> None:
        self._root = root
        self._param = param
        self._closed = closed
        self._nodes = self._properties = self._values = 0

    def bound(self) -> dict[str, Any]:
        root = self._node(self._root, "#", 0)
        for group in sorted(_DEFINITIONS & self._root.keys()):
            definitions = self._mapping(self._root[group], f"#/{group}")
            if len(definitions) > DEFINITIONS_LIMIT:
                raise self._fault(f"#/{group}", f"holds more than {DEFINITIONS_LIMIT} definitions")
            root[group] = {
                name: self._node(node, f"#/{group}/{name}", 1) for name, node in definitions.items()
            }
        self._require_endings(root)
        return root

    def _node(self, node: Any, place: str, depth: int) -> dict[str, Any]:
        self._nodes += 1
        if self._nodes > NODES_LIMIT:
            raise self._fault(place, f"the schema has more than {NODES_LIMIT} parts")
        if depth > DEPTH_LIMIT:
            raise self._fault(place, f"the schema is nested more than {DEPTH_LIMIT} deep")
        if node is True:
            return {}
        if not isinstance(node, dict):
            raise self._fault(place, "must be a schema, and one that allows something")
        binding = node.keys() - _ANNOTATIONS
        if place == "#":
            binding -= _DEFINITIONS
        for alone in ("$ref", "anyOf", "enum", "const"):
            if alone in binding:
                return self._alone(alone, node, binding, place, depth)
        for keyword in sorted(binding - _BINDING.keys() - {"type"}):
            raise self._fault(place, f"the keyword {keyword[:60]!r} is not supported")
        return self._typed(node, binding, place, depth)

    def _alone(
        self, keyword: str, node: dict[str, Any], binding: set[str], place: str, depth: int
    ) -> dict[str, Any]:
        """Keywords that the compiler takes without looking at their siblings."""
        others = binding - {keyword}
        if keyword in ("enum", "const"):
            others -= {"type"}
        for other in sorted(others):
            raise self._fault(place, f"{other[:60]!r} beside {keyword!r} is not supported")
        value = node[keyword]
        match keyword:
            case "$ref":
                return {"$ref": self._reference(value, place)}
            case "anyOf":
                branches = self._list(value, f"{place}/anyOf")
                return {
                    "anyOf": [
                        self._node(branch, f"{place}/anyOf/{index}", depth + 1)
                        for index, branch in enumerate(branches)
                    ]
                }
            case _:
                values = [value] if keyword == "const" else self._list(value, f"{place}/enum")
                types = self._types(node, place)
                for allowed in values:
                    if types and not any(_is(allowed, name) for name in types):
                        raise self._fault(place, f"{keyword!r} holds a value of another type")
                    self._count_value(allowed, place, depth)
                return {keyword: value}

    def _typed(
        self, node: dict[str, Any], binding: set[str], place: str, depth: int
    ) -> dict[str, Any]:
        types = self._types(node, place)
        if not types:
            types = sorted({_BINDING[keyword] for keyword in binding})
        bound: dict[str, Any] = {}
        if types:
            bound["type"] = types[0] if len(types) == 1 else types
        if "object" in types:
            bound |= self._object(node, place, depth)
        if "array" in types:
            bound |= self._array(node, place, depth)
        if "string" in types:
            bound |= self._string(node, place)
        if {"number", "integer"} & set(types):
            bound |= self._number(node, place)
        return bound

    def _object(self, node: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        properties = self._mapping(node.get("properties", {}), f"{place}/properties")
        self._properties += len(properties)
        if self._properties > PROPERTIES_LIMIT:
            raise self._fault(place, f"the schema names more than {PROPERTIES_LIMIT} properties")
        required = node.get("required", [])
        if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
            raise self._fault(f"{place}/required", "must be a list of names")
        for name in required:
            if name not in properties:
                raise self._fault(
                    f"{place}/required", f"{name[:60]!r} must be one of the properties"
                )
        more = node.get("additionalProperties", not (self._closed and properties))
        if not isinstance(more, bool):
            more = self._node(more, f"{place}/additionalProperties", depth + 1)
        bound: dict[str, Any] = {"additionalProperties": more}
        if properties:
            bound["properties"] = {
                name: self._node(value, f"{place}/properties/{name[:60]}", depth + 1)
                for name, value in properties.items()
            }
            bound["required"] = list(dict.fromkeys(required))
        return bound

    def _array(self, node: dict[str, Any], place: str, depth: int) -> dict[str, Any]:
        if node.get("uniqueItems", False) is not False:
            raise self._fault(place, "the keyword 'uniqueItems' is not supported")
        bound = self._range(node, "minItems", "maxItems", place)
        if "prefixItems" in node:
            first = [
                self._node(item, f"{place}/prefixItems/{index}", depth + 1)
                for index, item in enumerate(self._list(node["prefixItems"], place))
            ]
            # xgrammar takes no more of them than there may be items.
            bound["prefixItems"] = first[: bound.get("maxItems", len(first))]
        items = node.get("items", True)
        if items is False and "prefixItems" in bound:
            return {**bound, "items": False}
        return {**bound, "items": self._node(items, f"{place}/items", depth + 1)}

    def _string(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        bound = self._range(node, "minLength", "maxLength", place)
        ruling = sorted({"pattern", "format"} & node.keys())
        if len(ruling) + bool(bound) > 1:
            raise self._fault(
                place, "a string takes one of 'pattern', 'format', and 'minLength' or 'maxLength'"
            )
        if "pattern" in node:
            fault = pattern_fault(node["pattern"])
            if fault is not None:
                raise self._fault(f"{place}/pattern", fault)
            bound["pattern"] = node["pattern"]
        if "format" in node:
            if not isinstance(node["format"], str) or node["format"] not in _FORMATS:
                raise self._fault(
                    f"{place}/format", f"must be one of {', '.join(sorted(_FORMATS))}"
                )
            bound["format"] = node["format"]
        return bound

    def _number(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        bound: dict[str, Any] = {}
        for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            if keyword not in node:
                continue
            value = node[keyword]
            if not _is(value, "number") or not abs(value) <= _NUMBER_LIMIT:
                raise self._fault(f"{place}/{keyword}", "must be a number of at most 2^53")
            if round(value, _DECIMALS_LIMIT) != value:
                raise self._fault(f"{place}/{keyword}", f"has more than {_DECIMALS_LIMIT} decimals")
            bound[keyword] = int(value) if value == int(value) else value
        for low, high in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
            if low in bound and high in bound:
                raise self._fault(place, f"takes one of {low!r} and {high!r}")
        return bound

    def _range(self, node: dict[str, Any], low: str, high: str, place: str) -> dict[str, Any]:
        bound = {keyword: node[keyword] for keyword in (low, high) if keyword in node}
        for keyword, value in bound.items():
            if not _is(value, "integer") or not 0 <= value <= LENGTH_LIMIT:
                raise self._fault(f"{place}/{keyword}", f"must be between 0 and {LENGTH_LIMIT}")
        if bound.get(low, 0) > bound.get(high, LENGTH_LIMIT):
            raise self._fault(place, f"{low!r} exceeds {high!r}")
        return bound

    def _reference(self, value: Any, place: str) -> str:
        found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise self._fault(
                place, "'$ref' must be '#' or name one of '#/$defs/' or '#/definitions/'"
            )
        group, name = found.groups()
        if group and name not in self._mapping(self._root.get(group, {}), f"#/{group}"):
            raise self._fault(place, f"'$ref' names {value[:80]!r}, which is not defined")
        return found[0]

    def _types(self, node: dict[str, Any], place: str) -> list[str]:
        types = node.get("type", [])
        if isinstance(types, str):
            types = [types]
        if not isinstance(types, list) or not all(
            isinstance(name, str) and name in _TYPES for name in types
        ):
            raise self._fault(f"{place}/type", f"must be of {', '.join(_TYPES)}")
        if "type" in node and not types:
            raise self._fault(f"{place}/type", "must name a type")
        return types

    def _count_value(self, value: Any, place: str, depth: int) -> None:
        self._values += 1
        if self._values > ENUM_LIMIT:
            raise self._fault(place, f"the schema names more than {ENUM_LIMIT} values")
        if depth > DEPTH_LIMIT:
            raise self._fault(place, f"the schema is nested more than {DEPTH_LIMIT} deep")
        if isinstance(value, dict):
            value = list(value.values())
        for inner in value if isinstance(value, list) else ():
            self._count_value(inner, place, depth + 1)

    def _mapping(self, value: Any, place: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._fault(place, "must be an object")
        return value

    def _list(self, value: Any, place: str) -> list[Any]:
        if not isinstance(value, list) or not value:
            raise self._fault(place, "must be a list that holds something")
        return value

    def _require_endings(self, root: dict[str, Any]) -> None:
        """Refuse what calls for a value within itself without end."""
        places = {"#": root} | {
            f"#/{group}/{name}": node
            for group in _DEFINITIONS & root.keys()
            for name, node in root[group].items()
        }
        ending: set[str] = set()
        while True:
            found = {place for place, node in places.items() if ends(node, ending)}
            if found == ending:
                break
            ending = found
        for place, node in places.items():
            if not all(ends(part, ending) for part in parts(node)):
                raise self._fault(place, "calls for a value within itself, without end")
            if place in same_value(node, places):
                raise self._fault(place, "is defined by itself")

    def _fault(self, place: str, words: str) -> RequestError:
        return RequestError(self._param, f"at {place}: {words}")


def _target(root: dict[str, Any], reference: str) -> dict[str, Any]:
    found = _REFERENCE.fullmatch(reference)
    assert found is not None
    target: dict[str, Any] = root[found[1]][found[2]] if found[1] else root
    return target


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name]) or (
        name == "integer" and isinstance(value, float) and value.is_integer()
    )
