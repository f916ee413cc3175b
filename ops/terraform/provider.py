"""A Terraform provider that knows a schema and no cloud.

Terraform speaks to it as to the real one (plugin protocol 6, over gRPC on loopback), so `validate`,
`test` and `plan` check arguments, blocks, types and references against the provider's schema
without its binary, a registry, credentials or a network. It plans as real providers do: what the
configuration leaves to the cloud becomes "known after apply", and write-only arguments are dropped.

It does not know allowed values, conflicts between arguments or the provider's defaults.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Any

import grpc
import msgpack

from ops.terraform import protocol
from ops.terraform.schemas import AttributeType, BlockSchema, ProviderSchemas

# Terraform's msgpack for "known after apply".
UNKNOWN = msgpack.ExtType(0, b"\x00")

_NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}
_UNLIMITED = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
]

# What data sources answer where a made-up text would make correct configurations fail.
_ANSWERS: Mapping[str, Mapping[str, Any]] = {
    "aws_availability_zones": {"names": ["us-east-1a", "us-east-1b", "us-east-1c"]},
    "aws_caller_identity": {"account_id": "000000000000"},
    "aws_partition": {"partition": "aws", "dns_suffix": "amazonaws.com"},
    "aws_region": {"name": "us-east-1", "region": "us-east-1"},
    "azurerm_client_config": {
        "client_id": "00000000-0000-0000-0000-000000000000",
        "object_id": "00000000-0000-0000-0000-000000000000",
        "subscription_id": "00000000-0000-0000-0000-000000000000",
        "tenant_id": "00000000-0000-0000-0000-000000000000",
    },
    "google_project": {"number": "000000000000", "id": "projects/offline"},
}
_BASE64 = ("certificate", "ca_data", "client_key")

Handler = Callable[[bytes], bytes]


@contextmanager
def serving(schemas: ProviderSchemas) -> Iterator[int]:
    """Serves one provider on a free port of 127.0.0.1 (yielded) while the context lasts."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8), options=_UNLIMITED)
    server.add_generic_rpc_handlers((_service(Provider(schemas)),))
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(grace=None).wait()


class Provider:
    """Answers Terraform's calls from a schema; each method is one call, bytes in and out."""

    def __init__(self, schemas: ProviderSchemas) -> None:
        self._schemas = schemas

    def schema(self, _: bytes) -> bytes:
        return self._schema_answer

    @cached_property
    def _schema_answer(self) -> bytes:
        # Made when it is first asked for: most configurations use one or two of five providers.
        answer: bytes = protocol.ProviderSchema(
            provider=_schema(self._schemas.provider),
            resource_schemas=_entries(self._schemas.resources),
            data_source_schemas=_entries(self._schemas.data),
        ).SerializeToString()
        return answer

    def nothing(self, _: bytes) -> bytes:
        """No diagnostics, no functions: the empty message."""
        return b""

    def upgrade(self, request: bytes) -> bytes:
        state = protocol.UpgradeRequest.FromString(request).raw_state.json
        return _state(protocol.DynamicValue(json=state))

    def read(self, request: bytes) -> bytes:
        return _state(protocol.ReadRequest.FromString(request).value)

    def plan(self, request: bytes) -> bytes:
        change = protocol.ChangeRequest.FromString(request)
        planned = planned_state(
            self._schemas.resources[change.type_name], _unpack(change.new_state.msgpack)
        )
        return _state(_packed(planned))

    def apply(self, request: bytes) -> bytes:
        return _state(protocol.ChangeRequest.FromString(request).new_state)

    def read_data(self, request: bytes) -> bytes:
        asked = protocol.ReadRequest.FromString(request)
        answer = answered(
            asked.type_name, self._schemas.data[asked.type_name], _unpack(asked.value.msgpack)
        )
        return _state(_packed(answer))


def planned_state(block: BlockSchema, proposed: Any) -> Any:
    """The state a real provider would plan for ``proposed``: computed nulls become unknown,
    write-only values null, at every depth. None (a destroy) stays None."""
    if not isinstance(proposed, dict):
        return proposed
    planned = dict(proposed)
    for name, attribute in block.attributes.items():
        value = planned.get(name)
        if attribute.write_only:
            planned[name] = None
        elif attribute.computed and value is None:
            planned[name] = UNKNOWN
        elif attribute.nested is not None:
            inner = BlockSchema(attributes=attribute.nested.attributes)
            planned[name] = _each(value, partial(planned_state, inner))
    for name, nested in block.blocks.items():
        planned[name] = _each(planned.get(name), partial(planned_state, nested.block))
    return planned


def answered(data_source: str, block: BlockSchema, config: Any) -> Any:
    """What the data source "found": the configuration, with made-up values for the rest.

    A data source may not answer "unknown", and null would fail expressions that are right.
    """
    answer = dict(config)
    known = _ANSWERS.get(data_source, {})
    for name, attribute in block.attributes.items():
        if attribute.computed and answer.get(name) is None and attribute.type is not None:
            answer[name] = known.get(name, _made_up(name, attribute.type))
    return answer


def _made_up(name: str, kind: AttributeType) -> Any:
    if kind == "string":
        text = f"offline-{name}"
        return base64.b64encode(text.encode()).decode() if name.endswith(_BASE64) else text
    if kind == "number":
        return 0
    if kind == "bool":
        return False
    if kind == "dynamic":
        return None
    if kind[0] == "object":
        return {key: _made_up(key, inner) for key, inner in kind[1].items()}
    if kind[0] == "map":
        return {}
    # One element: `thing[0]` is how configurations reach into computed blocks.
    return [_made_up(name, kind[1])]


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """``change`` applied to a block value, whichever way its items are held."""
    if isinstance(value, list):
        return [change(item) for item in value]
    return change(value)


def _service(provider: Provider) -> grpc.GenericRpcHandler:
    handlers: dict[str, Handler] = {
        "GetProviderSchema": provider.schema,
        "GetFunctions": provider.nothing,
        "ValidateProviderConfig": provider.nothing,
        "ValidateResourceConfig": provider.nothing,
        "ValidateDataResourceConfig": provider.nothing,
        "ConfigureProvider": provider.nothing,
        "StopProvider": provider.nothing,
        "UpgradeResourceState": provider.upgrade,
        "ReadResource": provider.read,
        "PlanResourceChange": provider.plan,
        "ApplyResourceChange": provider.apply,
        "ReadDataSource": provider.read_data,
    }
    return grpc.method_handlers_generic_handler(
        protocol.SERVICE,
        {
            name: grpc.unary_unary_rpc_method_handler(partial(_called, handler))
            for name, handler in handlers.items()
        },
    )


def _called(handler: Handler, request: bytes, _: grpc.ServicerContext) -> bytes:
    return handler(request)


def _schema(block: BlockSchema) -> Any:
    return protocol.Schema(block=_block(block))


def _entries(blocks: Mapping[str, BlockSchema]) -> list[Any]:
    return [protocol.SchemaEntry(key=name, value=_schema(block)) for name, block in blocks.items()]


def _block(block: BlockSchema) -> Any:
    return protocol.Block(
        attributes=_attributes(block),
        block_types=[
            protocol.NestedBlock(
                type_name=name,
                nesting=_NESTING[nested.nesting],
                min_items=nested.min_items,
                max_items=nested.max_items,
                block=_block(nested.block),
            )
            for name, nested in block.blocks.items()
        ],
    )


def _attributes(block: BlockSchema) -> list[Any]:
    messages = []
    for name, attribute in block.attributes.items():
        kind: dict[str, Any] = {"type": json.dumps(attribute.type).encode()}
        if attribute.nested is not None:
            inner = BlockSchema(attributes=attribute.nested.attributes)
            kind = {
                "nested_type": protocol.Object(
                    nesting=_NESTING[attribute.nested.nesting], attributes=_attributes(inner)
                )
            }
        messages.append(
            protocol.Attribute(
                name=name,
                required=attribute.required,
                optional=attribute.optional,
                computed=attribute.computed,
                sensitive=attribute.sensitive,
                write_only=attribute.write_only,
                **kind,
            )
        )
    return messages


def _state(value: Any) -> bytes:
    state: bytes = protocol.StateResponse(state=value).SerializeToString()
    return state


def _packed(value: Any) -> Any:
    return protocol.DynamicValue(msgpack=msgpack.packb(value))


def _unpack(packed: bytes) -> Any:
    return msgpack.unpackb(packed, strict_map_key=False)
