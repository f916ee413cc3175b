"""Start, deploy to and stop the Ray cluster of one machine; every environment setting is here.

Everything listens on loopback and every Ray port asks for a token. Several systems can run side by
side: each has its own state folder, session folder and ports, and ``stop`` ends only its own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from serve_app.config import Config
from serve_app.reasons import plain

APPLICATION = "pixtral"
# Ray's daemons end within a second or two of being asked, or not at all.
STOP_TIMEOUT_S = 4.0
PULSE_TIMEOUT_S = 5.0

# By measurement (ops/bench/README.md) one loop for all speeds nothing up, so user code keeps one of
# its own and cannot hold up a health check. HAProxy stays off, as it listens on every interface.
SERVE_SETTINGS = {
    "RAY_SERVE_LOG_TO_STDERR": "0",
    # Each round costs the controller 4 ms, whether or not there is anything to do: at Serve's own
    # 0.1 s, 5 % of a core. A replica that died is replaced half a second later, of many.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",
    # What may come back by gRPC: the tokens of the longest text that a body can hold, which is
    # refused with its count. Serve's 4 MiB would lose it without one.
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(2**30),
}
READ_AT_IMPORT = (
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_ENABLE_AUTO_CONNECT",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_allow_out_of_band_object_ref_serialization",
)


# The `ray` command without its client server, which nothing uses. It would start, on one port for
# all systems, wherever what it needs is installed, has no switch, and outlives the rest.
_RAY = (
    "from ray.scripts import scripts;"
    "scripts.get_ray_client_dependency_error = lambda: 'switched off';"
    "scripts.main()"
)


class ClusterError(Exception):
    """The cluster could not be started, deployed to or stopped; one clear line."""


@dataclass(frozen=True, slots=True)
class TierStatus:
    name: str
    status: str
    replicas: int
    message: str


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """``pulses`` are the decoder groups' own reports (see ``decoder/group.py``)."""

    running: bool
    application: str
    message: str
    tiers: tuple[TierStatus, ...] = ()
    pulses: tuple[dict[str, Any], ...] = ()


# What every Ray process needs wherever it runs; pods get exactly these (ops/deploy/pods.py).
EVERYWHERE = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Threads of Serve outlive a driver's connection; reconnecting for them to a system that is
    # gone would end the process after a minute.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    # A reference pickled outside Ray's counting leaks; make such a mistake fail loudly.
    "RAY_allow_out_of_band_object_ref_serialization": "0",
    # Ray's coming default: a process that booked no GPU keeps its environment.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A group lives on one host, so its ranks need no other interface.
    "GLOO_SOCKET_IFNAME": "lo",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    **SERVE_SETTINGS,
}


def environment(config: Config, state: Path) -> dict[str, str]:
    """What every Ray process and driver of this system needs in its environment."""
    return {
        **EVERYWHERE,
        "RAY_AUTH_TOKEN_PATH": str(state / "ray-token"),
        "RAY_ADDRESS": f"127.0.0.1:{config.ray.gcs_port}",
        # Ray would otherwise replace a loopback node address by the machine's own.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        **_prometheus(config),
    }


def _prometheus(config: Config) -> dict[str, str]:
    """Where Ray's dashboard asks for history. Of Grafana it is told nothing: it looks on this
    machine's port 3000, and shows no graphs where none is."""
    if not config.observe.enabled:
        return {}
    return {"RAY_PROMETHEUS_HOST": f"http://127.0.0.1:{config.observe.port}"}


def session_folder(state: Path) -> Path:
    """Ray's folder. Short, as it holds unix sockets, whose paths end at 107 characters."""
    digest = hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"pixtral-ray-{digest}"


def start(config: Config, state: Path) -> None:
    """Start Ray's head on loopback.

    Raises:
        ClusterError: it did not start; the message is Ray's own last line.
    """
    _ensure_token(state)
    ray = config.ray
    command = [
        *(sys.executable, "-c", _RAY, "start", "--head"),
        "--node-ip-address=127.0.0.1",
        f"--port={ray.gcs_port}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={ray.dashboard_port}",
        f"--metrics-export-port={ray.metrics_port}",
        f"--num-cpus={ray.num_cpus}",
        f"--object-store-memory={ray.object_store_bytes}",
        f"--temp-dir={session_folder(state)}",
        # Any free port: a fixed range may hold one that the config gives to something else.
        "--min-worker-port=0",
        "--max-worker-port=0",
        "--disable-usage-stats",
        "--log-style=record",
        "--log-color=false",
    ]
    result = subprocess.run(
        command,
        env=os.environ | environment(config, state),
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise ClusterError(f"Ray did not start: {_last_line(result.stderr or result.stdout)}")


def deploy(config: Config, state: Path) -> None:
    """Run the application and wait until every tier is healthy.

    Raises:
        ClusterError: a tier failed to start; the message says which and why.
    """
    with connected(config, state):
        from ray import serve

        from serve_app.app import build

        start_edge(config)
        try:
            serve.run(build(config), name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            raise ClusterError(_last_line(str(error))) from error


def start_edge(config: Config) -> None:
    """Start Serve's own proxy, on the gateway's host and port only."""
    from ray import serve
    from ray.serve.config import HTTPOptions, ProxyLocation

    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=config.gateway.host, port=config.gateway.port),
    )


def status(config: Config, state: Path) -> ClusterStatus:
    """What runs; never raises for a system that is down."""
    if not processes(state):
        return ClusterStatus(False, "NOT_STARTED", "not running")
    with connected(config, state):
        from ray import serve

        application = serve.status().applications.get(APPLICATION)
        if application is None:
            return ClusterStatus(True, "NOT_STARTED", "Ray runs, the application does not")
        tiers = tuple(
            TierStatus(
                name, tier.status.value, sum(tier.replica_states.values()), plain(tier.message)
            )
            for name, tier in application.deployments.items()
        )
        return ClusterStatus(True, application.status.value, application.message, tiers, pulses())


def pulses() -> tuple[dict[str, Any], ...]:
    """What each decoder group says of itself (see ``decoder/group.py``); none while none runs."""
    from ray import serve
    from ray.serve.exceptions import DeploymentUnavailableError

    handle = serve.get_deployment_handle("DecoderGroup", APPLICATION)
    try:
        answers = handle.broadcast("pulse").results(
            timeout_s=PULSE_TIMEOUT_S, return_exceptions=True
        )
    except (DeploymentUnavailableError, TimeoutError):
        return ()
    finally:
        # Otherwise it reports its load for as long as this process lives.
        handle.shutdown()
    return tuple(
        {"error": str(answer)} if isinstance(answer, BaseException) else asdict(answer)
        for answer in answers
    )


def stop(config: Config, state: Path) -> None:
    """End every process of this system, then remove what it left on disk; idempotent."""
    del config
    ours = processes(state)
    for process in ours:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(ours, timeout=STOP_TIMEOUT_S)
    stubborn = list({*alive, *processes(state)})
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, alive = psutil.wait_procs(stubborn, timeout=STOP_TIMEOUT_S)
    still = [process.pid for process in alive if not _is_dead(process)]
    if still:
        raise ClusterError(f"processes {still} do not end")
    shutil.rmtree(session_folder(state), ignore_errors=True)


def _is_dead(process: psutil.Process) -> bool:
    """Also where its parent, which may be anybody's, has not taken note of it yet."""
    try:
        dead: bool = process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    return dead


def processes(state: Path) -> list[psutil.Process]:
    """This system's processes: Ray names its session folder in the command line of each daemon,
    and workers, which rename themselves, are the daemons' children."""
    marker = str(session_folder(state))
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if any(marker in part for part in process.cmdline()):
                for member in (process, *process.children(recursive=True)):
                    found[member.pid] = member
    found.pop(os.getpid(), None)
    return list(found.values())


@contextmanager
def connected(config: Config, state: Path) -> Iterator[None]:
    """This process as a driver of the system; calls inside another ``connected`` share its
    connection.

    Ray reads its environment when it is imported and keeps its token for the life of the process,
    so a process can be the driver of one system only, and must not import Ray before this.

    Raises:
        ClusterError: Ray does not answer.
    """
    wanted = environment(config, state)
    if "ray" in sys.modules and any(os.environ.get(key) != wanted[key] for key in READ_AT_IMPORT):
        raise RuntimeError("Ray was imported before its environment was set")
    os.environ.update(wanted)
    import ray

    if ray.is_initialized():
        yield
        return
    on_terminate = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=os.environ["RAY_ADDRESS"],
            namespace="serve",
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError) as error:
        raise ClusterError(f"cannot reach Ray: {str(error).splitlines()[0]}") from error
    if threading.current_thread() is threading.main_thread():
        # Ray's own handler would end this process before it has cleaned up.
        signal.signal(signal.SIGTERM, on_terminate)
    try:
        yield
    finally:
        ray.shutdown()


def _ensure_token(state: Path) -> None:
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = state / "ray-token"
    if not token.exists():
        with os.fdopen(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))


def _last_line(text: str) -> str:
    """Where Ray and Serve, after a stack trace, say what was raised."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
