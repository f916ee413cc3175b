"""The admin API of a running system, as its commands call it. Standard library only."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.parse import quote, urlencode

from ops.console import target
from ops.problem import Problem
from ops.question import refusal

# Never through a proxy, which would see the key.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# A reconciliation of a large ledger takes its time.
_TIMEOUT_S = 120.0


class Admin:
    def __init__(self, root: str, api_key: str) -> None:
        self._root = root
        self._api_key = api_key

    @classmethod
    def of(cls, url: str | None, key: str | None) -> Admin:
        """Of the system at ``url``, else of the one that runs here. Raises Problem."""
        system = target(url, key)
        return cls(system.root, system.api_key)

    def get(self, path: str, **params: Any) -> Any:
        """Parameters that are None are left out. Raises Problem, as all of these."""
        return json.loads(self.read(path, **params))

    def read(self, path: str, **params: Any) -> bytes:
        """What is answered, as it is."""
        given = {name: value for name, value in params.items() if value is not None}
        query = urlencode(given, doseq=True)
        return self._send("GET", f"{path}?{query}" if query else path)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return json.loads(self._send("POST", path, body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return json.loads(self._send("PATCH", path, body))

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        url = f"{self._root}/admin/{path}"
        try:
            request = urllib.request.Request(url, method=method)
        except ValueError:
            raise Problem(f"{self._root} is no address like http://host:8000/v1") from None
        if self._api_key:
            request.add_header("Authorization", f"Bearer {self._api_key}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with _DIRECT.open(request, timeout=_TIMEOUT_S) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            raise Problem(refusal(error.code, error.read().decode(errors="replace"))) from error
        except (OSError, HTTPException) as error:
            raise Problem(
                f"nobody answers at {self._root}; start the system with `pixtral up`"
            ) from error


def segment(text: str) -> str:
    """A name as a part of a path; ``organisation/team`` keeps its slash."""
    return quote(text, safe="/")
