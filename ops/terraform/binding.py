"""The bindings of one type, read: classes and functions of JavaScript become a schema.

The text is made by a generator and regular enough for patterns; nothing is executed. Where the
facts stand: required, optional or computed in a comment before each property; type and "is it a
block" in `…ToHclTerraform`; how often a block may come in the class that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ops.terraform.schemas import (
    AttributeSchema,
    AttributeType,
    BlockSchema,
    NestedAttributes,
    NestedBlockSchema,
    Nesting,
)

# Attributes that providers document as sensitive and that our kind of configuration could leak.
_SENSITIVE = frozenset(
    {
        "access_token",
        "administrator_login_password",
        "administrator_password",
        "auth_string",
        "auth_token",
        "client_key",
        "client_secret",
        "kube_admin_config",
        "kube_admin_config_raw",
        "kube_config",
        "kube_config_raw",
        "master_password",
        "password",
        "primary_access_key",
        "primary_connection_string",
        "private_key",
        "secondary_access_key",
        "secondary_connection_string",
        "secret_data",
        "secret_string",
    }
)

_CLASS = re.compile(r"^class (\w+) extends cdktn\.(\w+)", re.MULTILINE)
_FUNCTION = re.compile(r"^function (\w+)ToHclTerraform\(", re.MULTILINE)
_PROPERTY = re.compile(
    r"^\s*// (\w+) - computed: (true|false), optional: (true|false), required: (true|false)\s*$",
    re.MULTILINE,
)
_ENTRY = re.compile(
    r'(\w+): \{\s*value: (.*?),\s*isBlock: (true|false),\s*type: "(\w+)",'
    r'\s*storageClassType: "(\w+)",\s*\}',
    re.DOTALL,
)
_HELD_BY = r'= new (?:\w+\.)?(\w+)\(this, "%s"(?:, (true|false))?\)'
_GETTER = r"return (cdktn\.Fn\.tolist\()?(?:cdktn\.\w+\()?this\.get(\w+?)Attribute\('%s'\)"
_MAPPER = re.compile(r"(\w+)ToHclTerraform\b")
_COLLECTION = re.compile(r"(string|number|boolean|any)((?:List|Map|Set)+)")
_SIMPLE = {"string": "string", "boolean": "bool", "number": "number", "any": "dynamic"}
_GETTERS: Mapping[str, AttributeType] = {
    "String": "string",
    "Number": "number",
    "Boolean": "bool",
    "List": ["list", "string"],
    "NumberList": ["list", "number"],
    "StringMap": ["map", "string"],
    "NumberMap": ["map", "number"],
    "BooleanMap": ["map", "bool"],
    "StringMapList": ["list", ["map", "string"]],
}


class Recursive(Exception):  # noqa: N818  (it stops one type, and no command)
    """The type contains itself: Terraform's schemas cannot say that at any finite size."""


@dataclass(frozen=True, slots=True)
class Class:
    base: str
    body: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of `…ToHclTerraform`: how the bindings write an argument into HCL."""

    value: str
    is_block: bool
    kind: str
    storage: str


@dataclass(frozen=True, slots=True)
class _Property:
    name: str
    computed: bool
    optional: bool
    required: bool
    text: str


@dataclass(frozen=True, slots=True)
class Binding:
    """The classes and functions of one type's source."""

    classes: Mapping[str, Class]
    functions: Mapping[str, Mapping[str, _Entry]]
    # Nested attributes instead of blocks.
    nested: bool

    @classmethod
    def parsed(cls, source: str, *, nested: bool) -> Binding:
        marks = sorted(
            [*_CLASS.finditer(source), *_FUNCTION.finditer(source)], key=lambda m: m.start()
        )
        ends = [mark.start() for mark in marks[1:]] + [len(source)]
        classes, functions = {}, {}
        for mark, end in zip(marks, ends, strict=True):
            body = source[mark.start() : end]
            if mark.re is _CLASS:
                classes[mark[1]] = Class(mark[2], body)
            else:
                functions[mark[1]] = _entries(body)
        return cls(classes, functions, nested)

    def top(self, name: str) -> BlockSchema:
        body = self.classes[name].body
        _, _, synthesis = body.partition("synthesizeHclAttributes()")
        return self._block(name, _entries(synthesis), path=())

    def _block(
        self, name: str, entries: Mapping[str, _Entry] | None, path: tuple[str, ...]
    ) -> BlockSchema:
        """The class ``name``; ``path`` is the classes around it."""
        if name in path:
            raise Recursive
        if entries is None:
            plain = name.removesuffix("OutputReference")
            entries = self.functions.get(plain[0].lower() + plain[1:], {})
        attributes: dict[str, AttributeSchema] = {}
        blocks: dict[str, NestedBlockSchema] = {}
        for each in _properties(self.classes[name].body):
            if each.name in attributes or each.name in blocks:
                continue
            built = self._property(each, entries.get(each.name), (*path, name))
            if isinstance(built, NestedBlockSchema):
                blocks[each.name] = built
            else:
                attributes[each.name] = built
        for key, entry in entries.items():
            known = attributes.get(key)
            unclear = known is not None and known.type == "dynamic" and entry.is_block
            if (known is None and key not in blocks) or unclear:
                attributes.pop(key, None)
                self._from_entry(key, entry, attributes, blocks)
        return BlockSchema(attributes=attributes, blocks=blocks)

    def _property(
        self, each: _Property, entry: _Entry | None, path: tuple[str, ...]
    ) -> AttributeSchema | NestedBlockSchema:
        held = re.search(_HELD_BY % each.name, each.text)
        if held is None or held[1] not in self.classes:
            return _attribute(each, entry, type=_type_of(each, entry))
        base = self.classes[held[1]].base
        single = base == "ComplexObject"
        inner = held[1] if single else re.sub(r"(List|Map)$", "", held[1]) + "OutputReference"
        if inner not in self.classes:
            kind = ["list", ["map", "string"]] if base == "StringMapList" else "dynamic"
            return _attribute(each, entry, type=kind)
        block = self._block(inner, None, path)
        is_set = held[2] == "true" or (entry is not None and entry.kind == "set")
        many: Nesting = "map" if base == "ComplexMap" else "set" if is_set else "list"
        is_struct = entry is not None and entry.kind == "struct"
        if entry is not None and entry.is_block and (is_struct or not self.nested):
            nesting: Nesting = "single" if is_struct else "map" if entry.kind == "map" else many
            counted = nesting in ("list", "set")
            return NestedBlockSchema(
                nesting=nesting,
                block=block,
                min_items=int(counted and each.required),
                max_items=int(counted and single),
            )
        if entry is not None and self.nested and (each.optional or not each.computed):
            nested = NestedAttributes(
                nesting="single" if single else many, attributes=block.attributes
            )
            return _attribute(each, entry, nested=nested)
        kind = _object(block)
        return _attribute(each, entry, type=kind if single and self.nested else [many, kind])

    def _from_entry(
        self,
        name: str,
        entry: _Entry,
        attributes: dict[str, AttributeSchema],
        blocks: dict[str, NestedBlockSchema],
    ) -> None:
        """An argument without a property: provider blocks, and what has no class of its own."""
        mapper = _MAPPER.search(entry.value.replace("cdktn.listMapperHcl(", ""))
        if mapper is None or mapper[1] not in self.functions:
            kind = _written(entry.kind, entry.storage) or "dynamic"
            attributes[name] = AttributeSchema(optional=True, type=kind)
            return
        inner = BlockSchema(attributes={}, blocks={})
        for key, each in self.functions[mapper[1]].items():
            self._from_entry(key, each, inner.attributes, inner.blocks)
        many = "listMapper" in entry.value
        if self.nested:
            nested = NestedAttributes(
                nesting="list" if many else "single", attributes=inner.attributes
            )
            attributes[name] = AttributeSchema(optional=True, nested=nested)
        elif entry.is_block:
            blocks[name] = NestedBlockSchema(
                nesting="set" if entry.kind == "set" else "list", block=inner
            )
        else:
            nesting = entry.kind if entry.kind in ("list", "set") else "list"
            attributes[name] = AttributeSchema(optional=True, type=[nesting, _object(inner)])


def _entries(body: str) -> dict[str, _Entry]:
    body = body.partition("Object.fromEntries")[0]
    return {
        name: _Entry(value, is_block == "true", kind, storage)
        for name, value, is_block, kind, storage in _ENTRY.findall(body)
    }


def _properties(body: str) -> Iterator[_Property]:
    marks = list(_PROPERTY.finditer(body))
    ends = [mark.start() for mark in marks[1:]]
    # The last one's code is followed by the rest of the class.
    ends += [marks[-1].end() + 900] if marks else []
    for mark, end in zip(marks, ends, strict=True):
        computed, optional, required = (flag == "true" for flag in mark.groups()[1:])
        yield _Property(mark[1], computed, optional, required, body[mark.end() : end])


def _attribute(
    each: _Property,
    entry: _Entry | None,
    *,
    type: AttributeType = None,
    nested: NestedAttributes | None = None,
) -> AttributeSchema:
    # Terraform wants one of the three said; what the bindings leave open may be given.
    optional = each.optional or not (each.required or each.computed)
    return AttributeSchema(
        type=type,
        nested=nested,
        required=each.required,
        optional=optional and not each.required,
        computed=each.computed and not each.required,
        write_only=entry is not None and "markWriteOnlyAttribute" in entry.value,
        sensitive=each.name in _SENSITIVE,
    )


def _type_of(each: _Property, entry: _Entry | None) -> AttributeType:
    if entry is not None and (kind := _written(entry.kind, entry.storage)) is not None:
        return kind
    getter = re.search(_GETTER % each.name, each.text)
    if getter is None:
        return "dynamic"
    kind = _GETTERS.get(getter[2], "dynamic")
    # tolist() around a getter: what is behind it is a set.
    return ["set", kind[1]] if getter[1] and isinstance(kind, list) else kind


def _written(kind: str, storage: str) -> AttributeType:
    """Terraform's type for the bindings' ("set", "stringList"); None for a class of theirs."""
    if storage in _SIMPLE:
        return _SIMPLE[storage]
    collection = _COLLECTION.fullmatch(storage)
    if collection is None:
        return None
    element, shape = _SIMPLE[collection[1]], collection[2]
    outer = kind if kind in ("list", "set") else "list"
    if shape.endswith("MapList"):
        return [outer, ["map", element]]
    if shape.endswith("ListList"):
        return ["list", ["list", element]]
    if shape.endswith("ListMap"):
        return ["map", ["list", element]]
    if shape.endswith("Map"):
        return "dynamic" if element == "dynamic" else ["map", element]
    return [outer, element]


def _object(block: BlockSchema) -> AttributeType:
    fields: dict[str, AttributeType] = {
        name: "dynamic" if attribute.type is None else attribute.type
        for name, attribute in block.attributes.items()
    }
    for name, nested in block.blocks.items():
        inner = _object(nested.block)
        fields[name] = inner if nested.nesting == "single" else [nested.nesting, inner]
    return ["object", fields]
