import asyncio
import io
import json
import socket

import pytest
from ray.exceptions import ActorDiedError
from rich.console import Console

from ops.bench.ports import free_ports
from ops.edge import Endpoints, health
from ops.launch import Launcher, differences
from ops.problem import Problem
from ops.progress import Progress
from ops.settings import Options
from ops.state import State
from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.keys import read_pepper
from serve_app.accounting.roles import Role
from serve_app.cluster import ClusterError
from serve_app.config import ConfigError, load_config
from tests.ops.fakes import FakeCluster, FakeGateway, write_config, write_model


class Bench:
    """A launcher over fakes, and what it said."""

    def __init__(self, folder):
        self.cluster = FakeCluster()
        self.state = State.open({"PIXTRAL_STATE": str(folder / "state")})
        self.said = io.StringIO()
        progress = Progress(Console(file=self.said, width=1000))
        self.launcher = Launcher(
            self.cluster, self.state, progress, write_model, ready_timeout_s=0.1
        )
        self.options = Options(config=write_config(folder / "config.yaml", free_ports(4)))

    def up(self, **changes):
        return self.launcher.up(Options(**{"config": self.options.config, **changes}))

    def nothing_is_left(self):
        return not self.cluster.running and self.state.running() is None


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    bench = Bench(tmp_path)
    yield bench
    bench.launcher.down()


def test_up_goes_through_every_step_and_ends_ready(bench):
    up = bench.up()
    assert bench.cluster.calls == ["start", "deploy"]
    assert not up.already
    assert up.api_key == bench.state.api_key(up.config)
    assert bench.state.running().ready
    assert health(Endpoints.of(up.config)).ready
    said = bench.said.getvalue()
    order = [
        said.index(f"✓ {step}") for step in ("model", "plan", "accounts", "Ray", "tiers", "warm-up")
    ]
    assert order == sorted(order)
    assert up.api_key not in said


def test_only_a_model_marked_untrained_is_announced_so(bench, tmp_path):
    bench.up()
    assert "weights are random" not in bench.said.getvalue()
    bench.launcher.down()
    marked = write_config(tmp_path / "marked.yaml", free_ports(4), "model: {untrained: true}\n")
    bench.up(config=marked)
    assert "pixtral-nano is untrained: its weights are random" in bench.said.getvalue()


def test_the_plan_line_gives_the_cut_in_numbers(bench):
    bench.up()
    assert "tp 1 on CPU: a rank holds 2 MiB of weights and 256 MiB of KV" in bench.said.getvalue()


def test_a_second_up_finds_the_first(bench):
    first, second = bench.up(), bench.up()
    assert second.already
    assert (second.config, second.api_key) == (first.config, first.api_key)
    assert bench.cluster.calls == ["start", "deploy"]
    # With no options it means "see that it runs", whatever it runs with.
    assert bench.launcher.up(Options()).config == first.config


def test_a_second_up_of_a_system_that_is_not_ready_says_why_and_stops_nothing(bench):
    bench.up()
    bench.cluster.gateway.ready, bench.cluster.gateway.reasons = False, ("group a is silent",)
    with pytest.raises(Problem, match="not ready after 0 s: group a is silent"):
        bench.up()
    assert bench.cluster.running
    assert bench.state.running() is not None


def test_other_settings_are_not_silently_ignored(bench):
    first = bench.up()
    with pytest.raises(Problem, match=r"decoder\.tensor_parallel: 1 runs, 4 is asked"):
        bench.up(tensor_parallel=4)
    assert bench.state.running().config == first.config
    assert bench.cluster.running


def test_what_no_longer_answers_is_cleared_away_and_started_anew(bench):
    bench.up()
    bench.cluster.stop()  # as when the machine was switched off
    bench.cluster.calls.clear()
    assert not bench.up().already
    assert bench.cluster.calls == ["stop", "start", "deploy"]
    assert "no longer answers" in bench.said.getvalue()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"model": "nowhere"}, "no model folder"),
        ({"tensor_parallel": 5}, "--tp 5"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(bench, tmp_path, options, reason):
    if "model" in options:
        options = {"model": tmp_path / options["model"]}
    with pytest.raises(Problem, match=reason):
        bench.up(**options)
    assert bench.cluster.calls == []
    assert bench.nothing_is_left()


def test_a_taken_port_is_refused_before_anything_starts(bench):
    refused = pytest.raises(Problem, match="is taken by")
    with socket.create_server(("127.0.0.1", 0)) as server, refused:
        bench.up(port=server.getsockname()[1])
    assert bench.cluster.calls == []
    assert bench.nothing_is_left()


def test_a_bad_option_is_refused_as_any_config_is(bench):
    with pytest.raises(ConfigError, match="--port 70000: must be between 1 and 65535"):
        bench.up(port=70000)


@pytest.mark.parametrize("error", [ClusterError("Vision: out of memory"), KeyboardInterrupt()])
def test_a_failed_start_leaves_nothing(bench, error):
    bench.cluster.deploy_errors = [error]
    with pytest.raises(type(error)):
        bench.up()
    assert bench.cluster.calls == ["start", "deploy", "stop"]
    assert bench.nothing_is_left()


def test_ray_that_does_not_start_leaves_nothing(bench):
    bench.cluster.start_error = ClusterError("Ray did not start: no room")
    with pytest.raises(ClusterError, match="no room"):
        bench.up()
    assert bench.cluster.calls == ["start", "stop"]
    assert bench.nothing_is_left()


def test_a_proxy_that_dies_once_is_started_again_and_said_so(bench):
    bench.cluster.deploy_errors = [ActorDiedError()]
    assert not bench.up().already
    assert bench.cluster.calls == ["start", "deploy", "stop", "start", "deploy"]
    assert "proxy died while starting; trying once more" in bench.said.getvalue()


def test_a_proxy_that_dies_twice_is_a_problem(bench):
    bench.cluster.deploy_errors = [ActorDiedError(), ActorDiedError()]
    with pytest.raises(Problem, match="died twice"):
        bench.up()
    assert bench.nothing_is_left()


def test_a_system_that_never_gets_ready_is_stopped_with_its_reasons(bench):
    bench.cluster.gateway = FakeGateway(ready=False, reasons=("group a: no token for 31 s",))
    with pytest.raises(Problem, match="not ready after 0 s: group a: no token for 31 s"):
        bench.up()
    assert bench.nothing_is_left()


def test_the_key_survives_down(bench):
    key = bench.up().api_key
    assert bench.launcher.down()
    assert bench.nothing_is_left()
    assert bench.up().api_key == key


def test_the_first_key_may_administer_and_the_accounts_survive_down(bench):
    up = bench.up()
    pepper = bench.state.pepper_file
    assert pepper.stat().st_mode & 0o777 == 0o600
    before = pepper.read_bytes()
    bench.launcher.down()
    assert bench.up().api_key == up.api_key
    assert pepper.read_bytes() == before
    assert asyncio.run(with_directory(up, Directory.principal)).role is Role.ADMIN


async def with_directory(up, work):
    database = Database.open(up.config.accounting.database_url)
    try:
        directory = Directory(database, read_pepper(up.config.accounting.pepper_file))
        return await work(directory, up.api_key)
    finally:
        await database.close()


def test_a_first_key_that_was_revoked_is_refused_before_anything_starts(bench):
    up = bench.up()
    bench.launcher.down()
    bench.cluster.calls.clear()
    asyncio.run(with_directory(up, revoke_first_key))
    with pytest.raises(Problem, match=r"the accounts cannot be used: key .* is revoked"):
        bench.up()
    assert bench.cluster.calls == []
    assert bench.nothing_is_left()


async def revoke_first_key(directory, token):
    found = await directory.principal(token)
    await directory.revoke_key(found.public_id, actor="test")


def test_down_is_idempotent(bench):
    assert not bench.launcher.down()
    bench.up()
    assert bench.launcher.down()
    assert not bench.launcher.down()


def test_a_large_models_licence_is_said_where_it_is_chosen(bench, tmp_path, monkeypatch):
    monkeypatch.setattr("ops.preflight.available_bytes", lambda: 2**50)
    bench.up(model=write_model(tmp_path / "renamed", dim=12288, n_layers=88))
    assert "Mistral Research License" in bench.said.getvalue()


def test_differences_name_key_and_both_values(tmp_path):
    old = load_config(None, {"model.path": "a"})
    new = load_config(None, {"model.path": "a", "gateway.port": 9000})
    assert differences(old, new) == ["gateway.port: 8000 runs, 9000 is asked"]
    assert differences(old, old) == []
    assert json.dumps(differences(old, new))
