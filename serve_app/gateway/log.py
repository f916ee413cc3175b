"""What the gateway logs: events with a request id and a team, one line each.

Never prompts, pictures, answers, keys or addresses with a query. Callers give none of these; what
slips into a value all the same, an exception's text above all, is blanked here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import MutableMapping
from typing import Any

import structlog

from serve_app.errors import ApiError
from serve_app.gateway.stack import stack_of

Logger = structlog.stdlib.BoundLogger
_BLANK = "[blanked]"
_SECRETS = re.compile(
    r"sk-pixtral-[\w-]+"  # keys
    r"|(?<=bearer )\S+"
    r"|data:[\w.+-]+/[\w.+-]+;[^\s'\"]*"  # pictures
    r"|(?<=\?)[^\s'\"]+"  # queries
    r"|(?<=://)[^\s/@]+(?=@)"  # passwords in addresses
    r"|[A-Za-z0-9+/_=-]{80,}",  # anything encoded
    re.IGNORECASE,
)


def logger(name: str) -> Logger:
    """``logger(__name__).info("request settled", request_id=…, team=…)``. Of an ``error`` its type
    and stack are told, of one of ours that nothing caused only what it is."""
    wrapped: Logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            _describe_error,
            _blank_secrets,
            structlog.processors.LogfmtRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return wrapped


def blanked(text: str) -> str:
    return _SECRETS.sub(_BLANK, text)


def _describe_error(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    error = event.get("error")
    if isinstance(error, ApiError) and error.__cause__ is None:
        event["error"] = f"{type(error).__name__} ({error.code})"
    elif isinstance(error, BaseException):
        event["error"] = stack_of(error)
    return event


def _blank_secrets(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = blanked(value)
    return event
