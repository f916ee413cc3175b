"""Stand-ins for what `pixtral` commands touch: a model folder, a cluster, a gateway. No Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from serve_app.cluster import ClusterStatus, TierStatus
from serve_app.config import Config
from shards.config import ModelConfig, TextConfig, VisionConfig

PARAMS: dict[str, Any] = {
    "dim": 96,
    "n_layers": 2,
    "n_heads": 12,
    "n_kv_heads": 4,
    "head_dim": 8,
    "hidden_dim": 256,
    "vocab_size": 1024,
    "rope_theta": 1e9,
    "norm_eps": 1e-5,
    "vision_encoder": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "image_size": 1024,
        "patch_size": 16,
        "rope_theta": 1e4,
        "image_token_id": 10,
        "adapter_bias": False,
    },
}
PIXTRAL_12B = ModelConfig(
    text=TextConfig(5120, 40, 32, 8, 128, 14336, 131072, 1e9, 1e-5, 131072),
    vision=VisionConfig(1024, 24, 16, 64, 4096, 1024, 16, 1e4),
    image_token_id=10,
    adapter_bias=True,
    layout="mistral",
)
PIXTRAL_LARGE = ModelConfig(
    text=TextConfig(12288, 88, 96, 8, 128, 28672, 32768, 1e9, 1e-5, 131072),
    vision=VisionConfig(1408, 40, 16, 88, 6144, 1024, 16, 1e4),
    image_token_id=10,
    adapter_bias=False,
    layout="mistral",
)


def write_model(folder: Path, **changes: Any) -> Path:
    """A folder that describes a small model; its weights are an empty file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps({**PARAMS, **changes}))
    (folder / "consolidated.safetensors").touch()
    return folder


def write_config(file: Path, ports: list[int], extra: str = "") -> Path:
    """A config file with all its ports; HTTP first."""
    http, dashboard, gcs, metrics = ports
    file.write_text(
        f"gateway: {{port: {http}}}\n"
        f"ray: {{dashboard_port: {dashboard}, gcs_port: {gcs}, metrics_port: {metrics}}}\n{extra}"
    )
    return file


@dataclass
class FakeGateway:
    """What the gateway of ``FakeCluster`` answers, and what it was asked."""

    ready: bool = True
    reasons: tuple[str, ...] = ()
    status: int = 200
    refusal: Any = None
    events: tuple[str, ...] = ()
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Answer until the block ends; yields the root URL."""
        server = self._start(port)
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            _end(server)

    def _start(self, port: int) -> ThreadingHTTPServer:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/readyz":
                    answer = {"ready": gateway.ready, "reasons": gateway.reasons}
                    self._send(200 if gateway.ready else 503, json.dumps(answer))
                else:
                    self._send(200, json.dumps({"data": [{"id": "first"}, {"id": "second"}]}))

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                gateway.bodies.append(json.loads(self.rfile.read(length)))
                gateway.keys.append(self.headers["Authorization"])
                if gateway.status == 200:
                    text = ": ping\n\n" + "".join(f"data: {e}\n\n" for e in gateway.events)
                else:
                    text = json.dumps(gateway.refusal)
                self._send(gateway.status, text)

            def _send(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return server


@dataclass
class FakeCluster:
    """Keeps the promise of ``serve_app.cluster``; its deployed application is a ``FakeGateway``."""

    gateway: FakeGateway = field(default_factory=FakeGateway)
    deploy_errors: list[Exception] = field(default_factory=list)
    start_error: Exception | None = None
    calls: list[str] = field(default_factory=list)
    pulses: tuple[dict[str, Any], ...] = ()
    _server: ThreadingHTTPServer | None = None

    def environment(self, config: Config, state: Path) -> dict[str, str]:
        return {"RAY_AUTH_TOKEN_PATH": str(state / "ray-token")}

    def start(self, config: Config, state: Path) -> None:
        self.calls.append("start")
        if self.start_error is not None:
            raise self.start_error

    def deploy(self, config: Config, state: Path) -> None:
        self.calls.append("deploy")
        if self.deploy_errors:
            raise self.deploy_errors.pop(0)
        self._server = self.gateway._start(config.gateway.port)

    def status(self, config: Config, state: Path) -> ClusterStatus:
        if not self.running:
            return ClusterStatus(False, "NOT_STARTED", "not running")
        tiers = (TierStatus("Gateway", "HEALTHY", 1, ""), TierStatus("Vision", "UPDATING", 2, "x"))
        return ClusterStatus(True, "RUNNING", "", tiers, self.pulses)

    def stop(self, config: Config | None = None, state: Path | None = None) -> None:
        self.calls.append("stop")
        if self._server is not None:
            _end(self._server)
            self._server = None

    @property
    def running(self) -> bool:
        return self._server is not None


def chunk(content: str | None = None, **fields: Any) -> str:
    """One chunk of a streamed answer, as the gateway sends it."""
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": None}
    return json.dumps({"model": "nano", "choices": [choice], "usage": None, **fields})


def usage_chunk() -> str:
    usage = {
        "prompt_tokens": 220,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 204, "text_tokens": 16},
        "cost": {"currency": "USD", "input": "0.00044", "output": "0.000018", "total": "0.000458"},
    }
    return chunk(choices=[], usage=usage)


ANSWER = (
    chunk("Three "),
    chunk("shapes"),
    chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}]),
    usage_chunk(),
    "[DONE]",
)


def _end(server: ThreadingHTTPServer) -> None:
    server.shutdown()
    server.server_close()
