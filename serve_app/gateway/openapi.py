"""What FastAPI cannot see of /openapi.json: the body that chat routes read themselves, streams."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from serve_app.gateway.answer_schemas import Completion, CompletionChunk
from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.fields import FIELDS, Treatment
from serve_app.gateway.idempotency import HEADER, PATTERN
from serve_app.gateway.scribe import EVENT_STREAM

_COMPONENTS = "#/components/schemas/"


def _ref(model: type) -> dict[str, str]:
    return {"$ref": _COMPONENTS + model.__name__}


TOKENIZE_REQUEST: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(ChatBody)}}}
}
CHAT_REQUEST: dict[str, Any] = {
    **TOKENIZE_REQUEST,
    "parameters": [
        {
            "name": HEADER,
            "in": "header",
            "required": False,
            "description": "Whoever sends it again with the same body gets the same answer, "
            "billed once",
            "schema": {"type": "string", "pattern": f"^{PATTERN}$"},
        }
    ],
}
COMPLETION: dict[str, Any] = {
    "model": Completion,
    "description": "Whole, or with `stream` as events: chunks in JSON, then `[DONE]`",
    "content": {
        EVENT_STREAM: {
            # Of one event, as of OpenAPI 3.1.
            "schema": {
                "type": "object",
                "required": ["data"],
                "properties": {
                    "data": {
                        "type": "string",
                        "anyOf": [
                            {
                                "contentMediaType": "application/json",
                                "contentSchema": _ref(CompletionChunk),
                            },
                            {"const": "[DONE]"},
                        ],
                    }
                },
            }
        }
    },
}


def describe_chat(app: FastAPI) -> None:
    """Have the schemas that the above refer to in the document, when it is first asked for: making
    it takes longer than starting the rest."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            _drop_foreign_errors(document)
            document["components"]["schemas"].update(_chat_schemas())
        return describe()

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _drop_foreign_errors(document: dict[str, Any]) -> None:
    """FastAPI's own 422, added wherever a path has a parameter: no route here answers it."""
    schemas = document["components"]["schemas"]
    if schemas.pop("HTTPValidationError", None):
        del schemas["ValidationError"]
    for route in document["paths"].values():
        for operation in route.values():
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]


def _chat_schemas() -> dict[str, Any]:
    """Honoured fields with their types; the others with what becomes of them."""
    _, made = models_json_schema(
        [(ChatBody, "validation"), (CompletionChunk, "validation")],
        ref_template=_COMPONENTS + "{model}",
    )
    schemas: dict[str, Any] = made["$defs"]
    for name, field in FIELDS.items():
        if field.treatment is not Treatment.HONOURED:
            schemas["ChatBody"]["properties"][name] = {
                "description": f"{field.treatment}: {field.why}"
            }
    return schemas
