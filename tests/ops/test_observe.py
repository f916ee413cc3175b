import io
import shutil
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from ops import observe
from ops.bench.ports import free_ports
from ops.launch import Launcher
from ops.preflight import named_ports
from ops.problem import Problem
from ops.progress import Progress
from ops.settings import Options
from ops.state import State
from serve_app import cluster
from serve_app.config import Config, load_config
from tests.ops.fakes import FakeCluster, write_config, write_model


@pytest.fixture
def config() -> Config:
    (port,) = free_ports(1)
    return load_config(None, {"model.path": "m", "observe.enabled": True, "observe.port": port})


@pytest.fixture
def program(tmp_path, monkeypatch):
    """What is found as Prometheus: a script with this body."""

    def install(body: str) -> None:
        script = tmp_path / "bin" / "prometheus"
        script.parent.mkdir()
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{script.parent}:/usr/bin:/bin")

    return install


class FakeObserver:
    def __init__(self, calls: list[str], error: Problem | None = None) -> None:
        self.calls = calls
        self.error = error

    def check(self) -> None:
        self.calls.append("check Prometheus")

    def start(self, config: Config, state: Path) -> None:
        self.calls.append("start Prometheus")
        if self.error is not None:
            raise self.error

    def stop(self, state: Path) -> None:
        self.calls.append("stop Prometheus")


def launched(tmp_path, monkeypatch, observer_error=None, **options):
    """The launcher's calls, and what became of `up`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fake = FakeCluster()
    launcher = Launcher(
        fake,
        State.open({"PIXTRAL_STATE": str(tmp_path / "state")}),
        Progress(Console(file=io.StringIO())),
        write_model,
        ready_timeout_s=0.1,
        observer=FakeObserver(fake.calls, observer_error),
    )
    config = write_config(tmp_path / "config.yaml", free_ports(4))
    try:
        launcher.up(Options(config=config, **options))
    finally:
        launcher.down()
    return fake.calls


def test_up_starts_it_after_the_tiers_and_down_ends_it_first(tmp_path, monkeypatch):
    calls = launched(tmp_path, monkeypatch, observe=True)
    assert calls == [
        *("check Prometheus", "start", "deploy", "start Prometheus"),
        *("stop Prometheus", "stop"),
    ]


def test_up_without_it_starts_none(tmp_path, monkeypatch):
    assert "start Prometheus" not in launched(tmp_path, monkeypatch)


def test_when_it_does_not_start_nothing_is_left(tmp_path, monkeypatch):
    with pytest.raises(Problem, match="did not start"):
        launched(tmp_path, monkeypatch, Problem("Prometheus did not start"), observe=True)
    assert State.open({"PIXTRAL_STATE": str(tmp_path / "state")}).running() is None


def test_where_it_is_not_installed_that_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Problem, match="apt install prometheus"):
        observe.check()


def test_one_that_fails_is_quoted_and_gone(program, config, tmp_path):
    program("echo starting; echo 'the disk is full' >&2; exit 1")
    with pytest.raises(Problem, match="the disk is full"):
        observe.start(config, tmp_path)
    assert observe.processes(tmp_path) == []


def test_one_that_never_answers_is_ended(program, config, tmp_path, monkeypatch):
    program("while true; do sleep 0.1; done")
    monkeypatch.setattr(observe, "START_TIMEOUT_S", 0.5)
    with pytest.raises(Problem, match="did not start"):
        observe.start(config, tmp_path)
    assert observe.processes(tmp_path) == []


def test_a_real_one_listens_on_loopback_and_goes_without_a_trace(config, tmp_path):
    if shutil.which("prometheus") is None:
        pytest.skip("needs package prometheus: apt install prometheus")
    observe.start(config, tmp_path)
    try:
        (process,) = observe.processes(tmp_path)
        listening = [
            connection.laddr
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert listening == [("127.0.0.1", config.observe.port)]
        assert observe.answers(config)
        assert (tmp_path / "prometheus" / "prometheus.yml").stat().st_mode & 0o777 == 0o600
    finally:
        observe.stop(tmp_path)
    assert observe.processes(tmp_path) == []
    assert not observe.answers(config)


def test_stopping_none_is_fine(tmp_path):
    observe.stop(tmp_path)


def test_it_scrapes_rays_places_and_the_gateway_with_its_token(config, tmp_path):
    token = tmp_path / "token"
    accounting = config.accounting.model_copy(update={"metrics_token_file": token})
    fenced = config.model_copy(update={"accounting": accounting})
    ray, gateway = observe.settings(fenced, tmp_path)["scrape_configs"]
    (discovery,) = ray["file_sd_configs"][0]["files"]
    assert Path(discovery).parent == cluster.session_folder(tmp_path)
    assert gateway["static_configs"] == [{"targets": ["127.0.0.1:8000"]}]
    assert gateway["authorization"] == {"credentials_file": str(token)}


@pytest.mark.parametrize(
    ("host", "target"),
    [("0.0.0.0", "127.0.0.1:8000"), ("::1", "[::1]:8000"), ("::", "[::1]:8000")],
)
def test_the_gateway_is_reached_where_it_listens(config, tmp_path, host, target):
    moved = config.model_copy(update={"gateway": config.gateway.model_copy(update={"host": host})})
    _, gateway = observe.settings(moved, tmp_path)["scrape_configs"]
    assert gateway["static_configs"] == [{"targets": [target]}]


def test_rays_dashboard_is_told_of_it_and_of_no_other(config, tmp_path):
    told = cluster.environment(config, tmp_path)["RAY_PROMETHEUS_HOST"]
    assert told == f"http://127.0.0.1:{config.observe.port}"
    without = load_config(None, {"model.path": "m"})
    assert "RAY_PROMETHEUS_HOST" not in cluster.environment(without, tmp_path)
    assert "observe.port" in named_ports(config)
    assert "observe.port" not in named_ports(without)
