"""Short questions to the running gateway: does it answer, is it ready, what does it serve.

Standard library only, and never through a proxy: the gateway is on this machine.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from serve_app.config import Config

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where everything is found once it runs; all on loopback unless the config says otherwise."""

    root: str
    dashboard: str
    metrics: str
    prometheus: str | None = None

    @classmethod
    def of(cls, config: Config) -> Endpoints:
        host = f"[{config.gateway.host}]" if ":" in config.gateway.host else config.gateway.host
        return cls(
            root=f"http://{host}:{config.gateway.port}",
            dashboard=f"http://127.0.0.1:{config.ray.dashboard_port}",
            metrics=f"http://127.0.0.1:{config.ray.metrics_port}/metrics",
            prometheus=f"http://127.0.0.1:{config.observe.port}"
            if config.observe.enabled
            else None,
        )

    @property
    def base_url(self) -> str:
        """What OpenAI's client calls ``base_url``."""
        return f"{self.root}/v1"


@dataclass(frozen=True, slots=True)
class Health:
    """``answering``: the process is there. ``ready``: every group generated a token of late."""

    answering: bool
    ready: bool
    reasons: tuple[str, ...] = ()


def health(endpoints: Endpoints, timeout_s: float = 5.0) -> Health:
    status, body = get_json(f"{endpoints.root}/readyz", timeout_s)
    if status == 0:
        return Health(answering=False, ready=False, reasons=(f"no answer at {endpoints.root}",))
    reasons = body.get("reasons", ()) if isinstance(body, dict) else ()
    return Health(answering=True, ready=status == 200, reasons=tuple(map(str, reasons)))


def wait_ready(endpoints: Endpoints, timeout_s: float) -> Health:
    """The first ready answer, or the last one before the time was up."""
    deadline = time.monotonic() + timeout_s
    while True:
        seen = health(endpoints)
        if seen.ready or time.monotonic() > deadline:
            return seen
        time.sleep(0.5)


def get_json(url: str, timeout_s: float, key: str | None = None) -> tuple[int, Any]:
    """HTTP status and decoded body; status 0 where nobody answers."""
    request = urllib.request.Request(url)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with _DIRECT.open(request, timeout=timeout_s) as response:
            return response.status, _decoded(response.read())
    except urllib.error.HTTPError as error:
        return error.code, _decoded(error.read())
    except (OSError, HTTPException):
        return 0, None


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
