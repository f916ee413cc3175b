"""The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header-07), read.

The draft's key is a quoted string; the clients in use send it bare. Both are taken as they come:
a key is only ever compared with itself.
"""

from __future__ import annotations

import re

from fastapi import Request

from serve_app.errors import InvalidRequest

HEADER = "Idempotency-Key"
_CHARS_LIMIT = 255
PATTERN = rf"[\x21-\x7e]{{1,{_CHARS_LIMIT}}}"
_KEY = re.compile(PATTERN)


def idempotency_key(request: Request) -> str | None:
    """Raises InvalidRequest: more than one, empty, too long, or of other than printable ASCII."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    if len(given) > 1 or _KEY.fullmatch(given[0]) is None:
        raise InvalidRequest(
            f"must be one key of 1 to {_CHARS_LIMIT} printable ASCII characters without spaces",
            param=HEADER,
        )
    return given[0]
