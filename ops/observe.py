"""`pixtral up --observe`: the Prometheus of this machine, beside the system and ended with it.

On loopback, with its data, config and log in the state folder:

    prometheus/
    ├── prometheus.yml    0600   what it scrapes: Ray's endpoints and the gateway's /metrics
    ├── data/                    bounded by observe.retention_days and observe.retention_mb
    └── prometheus.log

Prometheus is the machine's own (a Debian package); nothing is downloaded. Its admin and lifecycle
interfaces stay off: whoever reaches the port may read, not change. Survives `pixtral down`: the
data only.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import yaml

from ops.problem import Problem
from ops.state import write_private
from serve_app.cluster import session_folder
from serve_app.config import Config

RULES = Path(__file__).parents[1] / "dashboards" / "rules"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
MISSING = (
    "--observe needs Prometheus, which is not installed. On Debian or Ubuntu: `apt install"
    " prometheus`, and `systemctl disable --now prometheus`, as the package starts one of its own"
    " that listens on every interface"
)
# Ray rewrites it when a node comes or goes.
_DISCOVERY = "prom_metrics_service_discovery.json"
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def url(config: Config) -> str:
    """Where its page is."""
    return f"http://127.0.0.1:{config.observe.port}"


def check() -> Path:
    """The program.

    Raises:
        Problem: there is none, or our rules are not where they belong.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise Problem(MISSING)
    if not RULES.is_dir():
        raise Problem(f"--observe needs {RULES}: run it from a checkout")
    return Path(program)


def start(config: Config, state: Path) -> None:
    """Return once it answers.

    Raises:
        Problem: it is not installed, or does not answer; then none is left running.
    """
    program, folder = check(), _folder(state)
    (folder / "data").mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(folder / "prometheus.yml", yaml.safe_dump(settings(config, state)))
    log = folder / "prometheus.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [
                str(program),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--storage.tsdb.retention.time={config.observe.retention_days}d",
                f"--storage.tsdb.retention.size={config.observe.retention_mb}MB",
                f"--web.listen-address=127.0.0.1:{config.observe.port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # It outlives this command, and a Ctrl-C here is not meant for it.
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if answers(config):
            return
        time.sleep(0.1)
    stop(state)
    raise Problem(f"Prometheus did not start: {_last_line(log)} ({log})")


def stop(state: Path) -> None:
    """End it; fine where none runs.

    Raises:
        Problem: it does not end.
    """
    ours = processes(state)
    for process in ours:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(ours, timeout=STOP_TIMEOUT_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(alive, timeout=STOP_TIMEOUT_S)
    if alive:
        raise Problem(f"Prometheus (process {alive[0].pid}) does not end")


def answers(config: Config) -> bool:
    try:
        with _DIRECT.open(f"{url(config)}/-/ready", timeout=2.0) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def processes(state: Path) -> list[psutil.Process]:
    """Known by their data folder, which no other system shares."""
    marker = f"--storage.tsdb.path={_folder(state) / 'data'}"
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if marker in process.cmdline():
                found.append(process)
    return found


def settings(config: Config, state: Path) -> dict[str, Any]:
    """prometheus.yml. Jobs are named as the alerts and dashboards/README.md expect."""
    interval = f"{config.observe.scrape_interval_s}s"
    gateway: dict[str, Any] = {
        "job_name": "pixtral-gateway",
        "static_configs": [{"targets": [_gateway(config)]}],
    }
    if config.accounting.metrics_token_file is not None:
        gateway["authorization"] = {"credentials_file": str(config.accounting.metrics_token_file)}
    discovery = str(session_folder(state) / _DISCOVERY)
    ray = {
        "job_name": "ray",
        "file_sd_configs": [{"files": [discovery], "refresh_interval": "10s"}],
    }
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": [ray, gateway],
    }


def _gateway(config: Config) -> str:
    host = config.gateway.host
    reached = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)
    if ":" in reached and not reached.startswith("["):
        reached = f"[{reached}]"
    return f"{reached}:{config.gateway.port}"


def _folder(state: Path) -> Path:
    return state.resolve() / "prometheus"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
