"""A really running system, and ways to look into it and to hurt it."""

from __future__ import annotations

import base64
import io
import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError

import psutil
from PIL import Image
from ray import serve

from ops.bench.ports import free_ports
from serve_app import cluster
from serve_app.config import Config, load_config
from tests.waiting import wait_until

KEY = "sk-pixtral-cluster-tests-of-all-tiers"


@dataclass(frozen=True)
class System:
    config: Config
    state: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config.gateway.port}"

    def chat(self, content: Any, **fields: Any) -> dict[str, Any]:
        """One non-streamed answer; raises HTTPError for any other status than 200."""
        with self.post(content, **fields) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    @contextmanager
    def post(
        self,
        content: Any,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] = MappingProxyType({}),
        **fields: Any,
    ) -> Iterator[Any]:
        body = {
            "model": self.config.model.name,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "ignore_eos": True,
            **fields,
        }
        request = urllib.request.Request(
            f"{self.url}{path}",
            json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}", **headers},
        )
        with urllib.request.urlopen(request, timeout=120) as response:
            yield response

    def events(self, content: Any, **fields: Any) -> Iterator[dict[str, Any]]:
        """The JSON events of a stream; ends with the stream."""
        with self.post(content, stream=True, **fields) as response:
            for line in response:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line.removeprefix(b"data: "))

    def group(self) -> dict[str, Any]:
        """The pulse of the one decoder group; waits while it is being replaced, which this
        process may hear of later than the gateway."""
        pulses: list[dict[str, Any]] = []

        def one_lives() -> bool:
            pulses[:] = cluster.pulses()
            return len(pulses) == 1 and "stats" in pulses[0]

        assert wait_until(one_lives, 60, 0.05), pulses
        return pulses[0]

    def stats(self) -> dict[str, Any]:
        """The group's engine counters."""
        stats: dict[str, Any] = self.group()["stats"]
        return stats

    def tiers(self) -> dict[str, int]:
        """Running replicas per tier."""
        application = serve.status().applications[cluster.APPLICATION]
        return {
            name: tier.replica_states.get("RUNNING", 0)
            for name, tier in application.deployments.items()
        }

    def metrics(self, name: str) -> list[float]:
        """Values of one series on Ray's metrics endpoint, over all label sets."""
        url = f"http://127.0.0.1:{self.config.ray.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith(name + "{")]

    def processes(self, name: str) -> list[psutil.Process]:
        """This system's processes whose title contains ``name`` (Ray titles actors by class)."""
        found = []
        for process in cluster.processes(self.state):
            with suppress(psutil.NoSuchProcess):
                if any(name in part for part in process.cmdline()):
                    found.append(process)
        return found

    def wait_ready(self, timeout_s: float = 90) -> None:
        assert wait_until(self.ready, timeout_s), "the system is not ready"

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as response:
                return bool(response.status == 200)
        except (HTTPError, OSError):
            return False


def ask(system: System, content: Any) -> str:
    """The id of a request that was answered."""
    with system.post(content, max_tokens=1) as response:
        response.read()
        return str(response.headers["x-request-id"])


def picture(width: int, height: int, shade: int = 128) -> dict[str, Any]:
    """An OpenAI content part holding a PNG."""
    buffer = io.BytesIO()
    Image.effect_noise((width, height), shade).convert("RGB").save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def make_config(model: Path, state: Path, overrides: dict[str, Any]) -> Config:
    http, dashboard, gcs, metrics = free_ports(4)
    key_file = state / "api-key"
    key_file.write_text(KEY)
    return load_config(
        None,
        {
            "model.path": str(model),
            "gateway.port": http,
            "gateway.api_key_file": str(key_file),
            "decoder.journal_folder": str(state / "journal"),
            "accounting.database_url": f"sqlite:///{state / 'accounting.sqlite'}",
            "accounting.pepper_file": str(state / "pepper"),
            "ray.dashboard_port": dashboard,
            "ray.gcs_port": gcs,
            "ray.metrics_port": metrics,
            **overrides,
        },
    )
