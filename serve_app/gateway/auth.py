"""Who may call: one bearer key, compared in constant time. Knows nothing of teams or budgets."""

from __future__ import annotations

import hmac
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from serve_app.errors import Unauthorized

_REFUSAL = "missing or unknown API key; send it as 'Authorization: Bearer KEY'"
_bearer = HTTPBearer(auto_error=False, description="The key that `pixtral up` prints")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class KeyCheck:
    """A route dependency; ``api_key`` None lets everyone in (loopback without auth)."""

    def __init__(self, api_key: str | None) -> None:
        self._api_key = None if api_key is None else api_key.encode()

    def __call__(self, credentials: Credentials) -> None:
        """Raises Unauthorized, in the same words for a missing and an unknown key."""
        if self._api_key is None:
            return
        given = credentials.credentials if credentials is not None else ""
        if not hmac.compare_digest(given.encode(), self._api_key):
            raise Unauthorized(_REFUSAL)
