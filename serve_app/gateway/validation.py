"""From request bytes to a ``ChatBody``: capped while reading, every fault named in our words.

Nothing of the body is echoed but field names and short scalars: it may hold pictures and secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from serve_app.errors import InvalidRequest, PayloadTooLarge
from serve_app.gateway.chat_body import ChatBody
from serve_app.gateway.fields import FIELDS, Dialect, Treatment

_FAULTS_SHOWN = 20
_ECHO_CHARS = 60


class MalformedBody(InvalidRequest):
    """The body does not have the shape of a chat request.

    ``faults`` are pydantic-like entries {loc, msg, type}, the first one also the message.
    """

    def __init__(self, faults: Sequence[Mapping[str, Any]]) -> None:
        first = faults[0]
        super().__init__(first["msg"], param=param_path(first["loc"]), code=first["type"])
        self.faults = tuple(faults[:_FAULTS_SHOWN])


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Raises PayloadTooLarge, unread where the length is declared, else at the first byte over."""
    too_large = PayloadTooLarge(
        f"the request body is larger than {max_bytes} bytes; send fewer or smaller pictures"
    )
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
    return bytes(body)


def parse_chat(body: bytes, dialect: Dialect) -> ChatBody:
    """Raises InvalidRequest (a field we must refuse) or MalformedBody (a wrong shape)."""
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise InvalidRequest("the body must be a JSON object", code="invalid_json")
    wanted = _honoured(values, dialect)
    try:
        return ChatBody.model_validate(wanted)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=True)
        raise MalformedBody([_fault(problem, wanted) for problem in problems]) from None


def param_path(location: Sequence[str | int]) -> str:
    """OpenAI's way to name a field.

    >>> param_path(["messages", 0, "content", 1, "image_url", "url"])
    'messages[0].content[1].image_url.url'
    """
    path = ""
    for step in location:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _honoured(values: Mapping[str, Any], dialect: Dialect) -> dict[str, Any]:
    """The fields to act upon; nulls, ignored fields and neutral values are left out."""
    honoured = {}
    for name, value in values.items():
        field = FIELDS.get(name)
        if field is None or not field.accepts_in(dialect):
            known_to = "Mistral's chat API" if dialect is Dialect.MISTRAL else "the chat API"
            shown = name[:_ECHO_CHARS]
            message = f"'{shown}' is not a field of {known_to}"
            raise MalformedBody([{"loc": [shown], "msg": message, "type": "unknown_parameter"}])
        if value is None or field.treatment is Treatment.IGNORED:
            continue
        if field.treatment is Treatment.HONOURED:
            honoured[name] = value
        elif not any(_same(value, neutral) for neutral in field.neutral):
            message = f"{name} is not supported: {field.why}"
            raise InvalidRequest(message, param=name, code="unsupported_parameter")
    return honoured


def _same(value: Any, neutral: Any) -> bool:
    """Equal and of one type: 0 is not False."""
    return type(value) is type(neutral) and bool(value == neutral)


def _fault(problem: ErrorDetails, body: Mapping[str, Any]) -> dict[str, Any]:
    location = _location(problem, body)
    if problem["type"] in ("union_tag_not_found", "union_tag_invalid"):
        discriminator = str(problem.get("ctx", {}).get("discriminator", "")).strip("'")
        location = [*location, discriminator]
    kind = _CODES.get(problem["type"], "invalid_value")
    if problem["type"].endswith("_type"):
        kind = "invalid_type"
    return {"loc": location, "msg": f"{param_path(location)} {_words(problem)}", "type": kind}


_CODES = {
    "missing": "missing_required_parameter",
    "union_tag_not_found": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "none_required": "unsupported_parameter",
    "union_tag_invalid": "unsupported_value",
    "unsupported_value": "unsupported_value",
}


def _words(problem: ErrorDetails) -> str:
    context = problem.get("ctx", {})
    match problem["type"]:
        case "missing" | "union_tag_not_found":
            return "is required"
        case "extra_forbidden":
            return "is not a known field"
        case "none_required":
            return "is not supported here"
        case "literal_error":
            return f"must be {context['expected']}"
        case "union_tag_invalid":
            tag = str(context["tag"])[:_ECHO_CHARS]
            return f"'{tag}' is not supported here; use {context['expected_tags']}"
        case "unsupported_value":
            return problem["msg"]
        case _:
            return problem["msg"].replace("Input should be", "must be").replace("Input", "it")


# Lists whose items pydantic tells apart by a field, and names by its value on the way.
_TAGGED_ITEMS: Mapping[str | int, str] = {"messages": "role", "content": "type"}


def _location(problem: ErrorDetails, body: Any) -> list[str | int]:
    """Pydantic's location without the names of the models it tried on the way."""
    location: list[str | int] = []
    here, tag = body, None
    *way, last = problem["loc"]
    for step in way:
        if tag is not None and step == tag:
            tag = None
            continue
        if isinstance(here, list) and isinstance(step, int):
            here = here[step]
            union = _TAGGED_ITEMS.get(location[-1]) if location else None
            tag = here.get(union) if isinstance(here, dict) else None
        elif isinstance(here, dict) and step in here:
            here = here[step]
        else:
            continue
        location.append(step)
    if problem["type"] == "missing" or (
        last in here if isinstance(here, dict) else isinstance(here, list)
    ):
        location.append(last)
    return location
