"""What is checked before anything starts; each check raises one Problem that says what to do."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

import psutil

from ops.memory import available_bytes, host_need, size
from ops.problem import Problem
from serve_app.config import Config, ConfigError
from serve_app.errors import ApiError
from shards.config import ModelConfig, read_model_config
from shards.errors import ModelConfigError, PlanError
from shards.plan import check_cut


def check_model(folder: Path) -> ModelConfig:
    """The model in ``folder``.

    Raises:
        Problem: no such folder, or nothing servable in it.
    """
    if folder.is_file():
        raise Problem(f"{folder} is a file; --model takes a checkpoint's folder")
    if not folder.is_dir():
        raise Problem(f"there is no model folder {folder}; give one with --model DIR")
    try:
        model = read_model_config(folder)
    except ModelConfigError as error:
        raise Problem(f"no model that can be served: {error}") from error
    if not any(folder.glob("*.safetensors")):
        raise Problem(f"{folder} describes a model but holds no *.safetensors weights")
    return model


def check_ranks(config: Config, model: ModelConfig) -> None:
    """Raises Problem where the tensor-parallel ranks do not cut the model evenly."""
    ranks = config.decoder.tensor_parallel
    try:
        check_cut(model, ranks)
    except PlanError as error:
        good = [str(count) for count in range(1, 17) if _cuts(model, count)]
        raise Problem(f"--tp {ranks}: {error}; this model allows {', '.join(good)}") from error


def check_memory(config: Config, model: ModelConfig) -> None:
    """Raises Problem where the host memory cannot hold the config."""
    need, available = host_need(config, model), available_bytes()
    if need.total > available:
        raise Problem(
            f"too little memory: about {size(need.total)} are needed (weights {size(need.weights)},"
            f" KV cache {size(need.kv_cache)}, object store {size(need.object_store)}, grammars"
            f" {size(need.grammars)}, processes {size(need.processes)}) and {size(available)} are"
            " available"
        )


def check_accounts(config: Config) -> None:
    """Raises Problem where the ledger's database does not answer. An embedded one that is not there
    yet is made by `pixtral up`."""
    # Here, as it imports what would slow down every other command.
    from serve_app.accounting.office import reach

    url = config.accounting.database_url
    if config.accounting.single_gateway and not Path(url.removeprefix("sqlite:///")).exists():
        return
    try:
        reach(config)
    except (ApiError, ConfigError) as error:
        raise Problem(f"accounting.database_url: {error}") from error


def check_ports(config: Config) -> None:
    """Raises Problem where a port is asked for twice or taken by somebody else."""
    ports = named_ports(config)
    for name, port in ports.items():
        twin = next(other for other, number in ports.items() if number == port)
        if twin != name:
            raise Problem(f"{twin} and {name} are both {port}; give each a port of its own")
    for name, port in ports.items():
        if not is_free(port, config.gateway.host if name == "gateway.port" else "0.0.0.0"):
            change = "choose another with --port" if name == "gateway.port" else f"change {name}"
            raise Problem(f"port {port} ({name}) is taken{holder(port)}; {change}")


def named_ports(config: Config) -> dict[str, int]:
    """Every port the config names, by its key."""
    return {
        "gateway.port": config.gateway.port,
        "ray.gcs_port": config.ray.gcs_port,
        "ray.dashboard_port": config.ray.dashboard_port,
        "ray.metrics_port": config.ray.metrics_port,
        **({"observe.port": config.observe.port} if config.observe.enabled else {}),
    }


def is_free(port: int, host: str) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """`` by NAME (process N)`` where the system tells, else nothing."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            # laddr is (address, port), and () for a socket that is not bound.
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.pid and port in tuple(connection.laddr)[1:2]:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (process {connection.pid})"
    return ""


def _cuts(model: ModelConfig, ranks: int) -> bool:
    try:
        check_cut(model, ranks)
    except PlanError:
        return False
    return True
