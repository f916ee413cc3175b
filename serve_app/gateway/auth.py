"""Who calls: from the Authorization header to a principal, noted on the request.

Once through here, a request's state has ``principal``. What a principal may do, it says itself.
"""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from serve_app.accounting.directory import Directory
from serve_app.accounting.principal import Principal

# As long as the directory remembers a key.
_FRESH_S = 1.0
_bearer = HTTPBearer(auto_error=False, description="A key that `pixtral keys create` has shown")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


class KeyCheck:
    """A route dependency. ``asks`` False lets everyone in as the anonymous member: loopback only,
    which the config sees to."""

    def __init__(self, directory: Directory, *, asks: bool) -> None:
        self._directory = directory
        self._asks = asks
        self._anonymous: Principal | None = None
        self._read_at = 0.0

    async def __call__(self, request: Request, credentials: Credentials) -> None:
        """
        Raises:
            Unauthorized: in the same words for a missing and an unknown key.
            LedgerUnavailable: the accounts cannot be read.
        """
        if self._asks:
            token = credentials.credentials if credentials is not None else ""
            request.state.principal = await self._directory.principal(token)
        else:
            request.state.principal = await self._nobody()

    async def _nobody(self) -> Principal:
        now = time.monotonic()
        if self._anonymous is None or now - self._read_at > _FRESH_S:
            self._anonymous = await self._directory.anonymous()
            self._read_at = now
        return self._anonymous


def principal_of(request: Request) -> Principal:
    """Of a request that came through ``KeyCheck``."""
    principal: Principal = request.state.principal
    return principal
