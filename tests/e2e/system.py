"""A really running system, started and stopped by the command a person types."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from serve_app import cluster
from serve_app.config import Config, load_config

PIXTRAL = Path(sys.executable).with_name("pixtral")
UP_TIMEOUT_S = 240
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Home:
    """State, cache and config of one system; several can live side by side."""

    state: Path
    cache: Path
    config_file: Path

    @property
    def environment(self) -> dict[str, str]:
        own = {"PIXTRAL_STATE": str(self.state), "XDG_CACHE_HOME": str(self.cache)}
        return {**os.environ, **own, "COLUMNS": "200"}

    @property
    def config(self) -> Config:
        return load_config(self.config_file, {"model.path": "bundled"})

    def pixtral(self, *args: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PIXTRAL, *args],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def spawn(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [PIXTRAL, *args],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # As a terminal starts it: tests that run in the background are told to ignore Ctrl-C,
            # and their children inherit it.
            preexec_fn=_heed_interrupts,
        )

    def processes(self) -> list[psutil.Process]:
        return cluster.processes(self.state)

    def _holding_token(self) -> list[psutil.Process]:
        """Every process with this system's token in its environment, however it calls itself."""
        token = cluster.environment(self.config, self.state)["RAY_AUTH_TOKEN_PATH"]
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("RAY_AUTH_TOKEN_PATH") == token:
                    found.append(process)
        return found

    def listening(self) -> dict[tuple[str, int], str]:
        """(address, port) -> name of the process, for every socket that this system listens on."""
        found = {}
        for process in self.processes():
            try:
                for connection in process.net_connections("inet"):
                    if connection.status == psutil.CONN_LISTEN:
                        address = (connection.laddr.ip, connection.laddr.port)
                        found[address] = " ".join(process.cmdline()[:2])
            except psutil.NoSuchProcess:
                continue
        return found

    def leftovers(self, shared_memory_before: set[str]) -> dict[str, object]:
        """What a stopped system has left behind, by kind; empty where there is nothing."""
        config = self.config
        ports = {
            config.gateway.port,
            config.ray.dashboard_port,
            config.ray.gcs_port,
            config.ray.metrics_port,
        }
        found = {
            "processes": [process.cmdline() for process in self._holding_token()],
            "sockets": [
                connection.laddr
                for connection in psutil.net_connections("inet")
                if connection.status == psutil.CONN_LISTEN and ports & set(connection.laddr[1:])
            ],
            "shared memory": shared_memory() - shared_memory_before,
            "folders": [path for path in [cluster.session_folder(self.state)] if path.exists()],
        }
        return {kind: left for kind, left in found.items() if left}


@dataclass(frozen=True)
class System:
    """``up`` is what `pixtral up --json` printed."""

    home: Home
    up: dict[str, Any]

    @property
    def root(self) -> str:
        return str(self.up["base_url"]).removesuffix("/v1")

    @property
    def model(self) -> str:
        return str(self.up["model"])

    @property
    def key(self) -> str:
        return str(self.up["api_key"])

    def group(self) -> dict[str, Any]:
        """The decoder group's own counters."""
        status = json.loads(self.home.pixtral("status", "--json").stdout)
        (group,) = status["groups"]
        assert "late" not in group, "read from Ray's metrics: the gateway did not tell"
        stats: dict[str, Any] = group["stats"]
        return stats


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def shared_memory() -> set[str]:
    """But for what database servers keep there, which other tests run beside ours."""
    names = {path.name for path in SHARED_MEMORY.iterdir()}
    return {name for name in names if not name.startswith(("PostgreSQL.", "pixtral-postgres-"))}
