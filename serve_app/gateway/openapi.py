"""The chat body in /openapi.json. Routes read the body themselves, so FastAPI cannot see it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.fields import FIELDS, Treatment

_COMPONENTS = "#/components/schemas/"
CHAT_REQUEST = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"{_COMPONENTS}ChatBody"}}},
    }
}


def describe_chat_body(app: FastAPI) -> None:
    """Have the schemas that ``CHAT_REQUEST`` refers to in the document, when it is first asked
    for: making it takes longer than starting the rest."""
    describe = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = describe().setdefault("components", {}).setdefault("schemas", {})
            schemas.update(_chat_schemas())
        return describe()

    app.openapi = described  # type: ignore[method-assign]  # FastAPI's own way to extend it


def _chat_schemas() -> dict[str, Any]:
    """Honoured fields with their types; the others with what becomes of them."""
    chat = ChatBody.model_json_schema(ref_template=_COMPONENTS + "{model}")
    parts: dict[str, Any] = chat.pop("$defs")
    for name, field in FIELDS.items():
        if field.treatment is not Treatment.HONOURED:
            chat["properties"][name] = {"description": f"{field.treatment}: {field.why}"}
    return {"ChatBody": chat, **parts}
