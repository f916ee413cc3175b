"""What the tiers log: events with a request id and a team, one line each.

Never prompts, pictures, answers, keys or addresses with a query. Callers give none of these; what
slips into a value all the same, an exception's text above all, is blanked here.

In a replica everything goes to Serve's own file of that replica, which the Ray dashboard shows: as
a line of text with ``name=value``, or as JSON where Serve writes that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from serve_app.errors import ApiError
from serve_app.stack import stack_of

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
_EVENT = "pixtral_event"
# Of every record; what else is on one, its caller gave as ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", _EVENT}
_logfmt = structlog.processors.LogfmtRenderer(bool_as_flag=False)


def logger(name: str) -> Logger:
    """``logger(__name__).info("request settled", request_id=…, team=…)``. Of an ``error`` its type
    and stack are told, of one of ours that nothing caused only what it is."""
    wrapped: Logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.stdlib.filter_by_level,
            _describe_error,
            _blank_secrets,
            _as_line_and_fields,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    return wrapped


def write_to_replica_file(tier: str, *, json: bool) -> None:
    """From now on this process logs where Serve keeps the replica's log. Once for each replica."""
    handler = ReplicaHandler(logging.getLogger("ray.serve"), tier, json=json)
    for name in ("serve_app", "shards"):
        ours = logging.getLogger(name)
        ours.handlers = [handler]
        ours.setLevel(logging.INFO)
        ours.propagate = False


class ReplicaHandler(logging.Handler):
    """Hands records on to Serve's logger, blanked, with their fields shown."""

    def __init__(self, serve: logging.Logger, tier: str, *, json: bool) -> None:
        super().__init__()
        self._serve = serve
        self._tier = tier
        self._json = json

    def emit(self, record: logging.LogRecord) -> None:
        fields = _fields(record)
        event = str(fields.pop("event"))
        told = logging.makeLogRecord({key: record.__dict__[key] for key in _KEPT})
        # Else Serve would put its own id for a call between tiers in place of the request's.
        told.skip_context_filter = True
        if "request_id" in fields:
            told.request_id = fields["request_id"]
        told.args = ()
        if self._json:
            told.msg = event
            told.__dict__.update(tier=self._tier, **fields)
        else:
            told.msg = _line({"event": event, "tier": self._tier, **fields})
        self._serve.handle(told)


_KEPT = (
    *("name", "levelno", "levelname", "pathname", "filename", "module", "lineno", "funcName"),
    *("created", "msecs", "relativeCreated", "process", "processName", "thread", "threadName"),
)


def blanked(text: str) -> str:
    return _SECRETS.sub(_BLANK, text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """``event`` and what was said with it; of the standard library's records, ``extra``."""
    if _EVENT in record.__dict__:
        return dict(record.__dict__[_EVENT])
    extra = {key: value for key, value in record.__dict__.items() if key not in _STANDARD}
    fields = {"event": record.getMessage(), **extra}
    if record.exc_info and record.exc_info[1] is not None:
        fields["error"] = stack_of(record.exc_info[1])
    return _blank_secrets(None, "", fields)  # type: ignore[return-value]  # a dict, as it was given


def _line(fields: Mapping[str, Any]) -> str:
    """The event as it is, then what was said with it."""
    others = {key: value for key, value in fields.items() if key != "event"}
    return f"{fields['event']} {_logfmt(None, '', others)}".rstrip()


def _as_line_and_fields(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    # structlog's own arguments for the standard library stay what they are.
    keyword = {key: event.pop(key) for key in ("exc_info", "stack_info") if key in event}
    return (_line(event),), {**keyword, "extra": {_EVENT: dict(event)}}


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
