"""The messages of Terraform's plugin protocol 6 that a provider without a cloud needs.

Described here at run time, so no generated stubs are kept and no protobuf compiler is needed.
Names and numbers are those of `tfplugin6.proto` in Terraform 1.11. Fields that are not named here
(a newer Terraform sends more) are skipped by protobuf itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "tfplugin6"
SERVICE = f"{PACKAGE}.Provider"

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "bytes": _Field.TYPE_BYTES,
    "string": _Field.TYPE_STRING,
    "bool": _Field.TYPE_BOOL,
    # An enumeration is a number on the wire; the few that are used have names in provider.py.
    "int64": _Field.TYPE_INT64,
}

# message -> field -> (number, type); "*" is repeated. A map is a repeated key and value.
_MESSAGES: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "DynamicValue": {"msgpack": (1, "bytes"), "json": (2, "bytes")},
    "RawState": {"json": (1, "bytes")},
    "Attribute": {
        "name": (1, "string"),
        "type": (2, "bytes"),
        "required": (4, "bool"),
        "optional": (5, "bool"),
        "computed": (6, "bool"),
        "sensitive": (7, "bool"),
        "nested_type": (10, "Object"),
        "write_only": (11, "bool"),
    },
    "Object": {"attributes": (1, "*Attribute"), "nesting": (3, "int64")},
    "NestedBlock": {
        "type_name": (1, "string"),
        "block": (2, "Block"),
        "nesting": (3, "int64"),
        "min_items": (4, "int64"),
        "max_items": (5, "int64"),
    },
    "Block": {"attributes": (2, "*Attribute"), "block_types": (3, "*NestedBlock")},
    "Schema": {"version": (1, "int64"), "block": (2, "Block")},
    "SchemaEntry": {"key": (1, "string"), "value": (2, "Schema")},
    "ProviderSchema": {
        "provider": (1, "Schema"),
        "resource_schemas": (2, "*SchemaEntry"),
        "data_source_schemas": (3, "*SchemaEntry"),
    },
    # The requests share their numbers as far as they share their fields.
    "UpgradeRequest": {"type_name": (1, "string"), "raw_state": (3, "RawState")},
    "ReadRequest": {"type_name": (1, "string"), "value": (2, "DynamicValue")},
    "ChangeRequest": {
        "type_name": (1, "string"),
        "prior_state": (2, "DynamicValue"),
        "new_state": (3, "DynamicValue"),
    },
    # Every answer that carries a state carries it as field 1.
    "StateResponse": {"state": (1, "DynamicValue")},
}


def _described() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{PACKAGE}.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            element = kind.removeprefix("*")
            described = message.field.add(
                name=field,
                number=number,
                label=_Field.LABEL_REPEATED if kind != element else _Field.LABEL_OPTIONAL,
                type=_SCALARS.get(element, _Field.TYPE_MESSAGE),
            )
            if element not in _SCALARS:
                described.type_name = f".{PACKAGE}.{element}"
    # A pool of its own: the default one is shared with whatever else the process has loaded.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _described()

Attribute = _CLASSES["Attribute"]
Block = _CLASSES["Block"]
ChangeRequest = _CLASSES["ChangeRequest"]
DynamicValue = _CLASSES["DynamicValue"]
NestedBlock = _CLASSES["NestedBlock"]
Object = _CLASSES["Object"]
ProviderSchema = _CLASSES["ProviderSchema"]
ReadRequest = _CLASSES["ReadRequest"]
Schema = _CLASSES["Schema"]
SchemaEntry = _CLASSES["SchemaEntry"]
StateResponse = _CLASSES["StateResponse"]
UpgradeRequest = _CLASSES["UpgradeRequest"]
