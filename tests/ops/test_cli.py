import json
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops import cli, served
from ops.bench.ports import free_ports
from ops.state import State
from serve_app.cluster import ClusterError
from tests.ops.fakes import ANSWER, FakeCluster, FakeGateway, write_config, write_model

ROOT = Path(__file__).parent.parent.parent
PULSE = {
    "group": "a",
    "token_age_s": float("inf"),
    "stats": {"running": 1, "waiting": 0, "blocks_total": 128, "blocks_free": 120},
}


class Pixtral:
    """The command as a person meets it, over a fake cluster."""

    def __init__(self, cluster, config_file):
        self.cluster = cluster
        self.config_file = str(config_file)

    def __call__(self, *args):
        return CliRunner().invoke(cli.app, [*args], catch_exceptions=False)

    def up(self, *args):
        return self("up", "--detach", "--config", self.config_file, *args)


@pytest.fixture
def pixtral(tmp_path, monkeypatch):
    cluster = FakeCluster(FakeGateway(events=ANSWER), pulses=(PULSE,))
    monkeypatch.setenv("PIXTRAL_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("PIXTRAL_API_KEY", raising=False)
    for module in (cli, served):
        monkeypatch.setattr(module, "cluster", cluster)
        monkeypatch.setattr(module, "bundled", write_model)
    yield Pixtral(cluster, write_config(tmp_path / "config.yaml", free_ports(4)))
    cluster.stop()


def running_config():
    running = State.open().running()
    assert running is not None
    return running.config


def one_line(result):
    """The error, which must be all that was said."""
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("pixtral: ")]
    assert "Traceback" not in result.stderr
    return line


def test_the_command_line_starts_without_ray_or_torch():
    """`pixtral --help` is the first thing a newcomer runs: it answers at once."""
    heavy = "{'ray', 'torch', 'fastapi', 'mistral_common', 'sqlalchemy', 'aiohttp'}"
    found = subprocess.run(
        [sys.executable, "-c", f"import sys, ops.cli; print(*{heavy} & set(sys.modules))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == []


@pytest.mark.parametrize("command", ["up", "down", "status", "ask", "eval", "doctor"])
def test_every_command_shows_an_example_that_parses(pixtral, command):
    text = " ".join(pixtral(command, "--help").stdout.split())
    example = re.search(r"Example: pixtral (.+?) (?:Arguments|Options):", text)
    assert example is not None
    words = shlex.split(example.group(1))
    assert words[0] == command
    parsed = pixtral(*words, "--help")
    assert parsed.exit_code == 0


def test_up_prints_every_address_and_a_key(pixtral):
    result = pixtral.up()
    assert result.exit_code == 0
    config = running_config()
    root = f"http://127.0.0.1:{config.gateway.port}"
    for line in (
        f"API            {root}/v1",
        f"models         {root}/v1/models",
        f"API schema     {root}/openapi.json",
        f"metrics        http://127.0.0.1:{config.ray.metrics_port}/metrics",
        f"Ray dashboard  http://127.0.0.1:{config.ray.dashboard_port}",
        f"cat {State.open().folder}/ray-token",
        f"key            {State.open().api_key(config)}",
    ):
        assert line in result.stdout


def test_the_curl_line_asks_as_printed(pixtral):
    (line,) = [line for line in pixtral.up().stdout.splitlines() if line.startswith("  curl ")]
    words = shlex.split(line)
    headers = [words[at + 1] for at, word in enumerate(words) if word == "-H"]
    request = urllib.request.Request(
        words[1],
        words[words.index("-d") + 1].encode(),
        dict(header.split(": ", 1) for header in headers),
    )
    urllib.request.urlopen(request, timeout=5).close()
    gateway = pixtral.cluster.gateway
    assert gateway.keys == [f"Bearer {State.open().api_key(running_config())}"]
    assert gateway.bodies[0]["model"] == "pixtral-nano"


def test_up_for_scripts(pixtral):
    result = pixtral.up("--json")
    config = running_config()
    assert json.loads(result.stdout) == {
        "base_url": f"http://127.0.0.1:{config.gateway.port}/v1",
        "api_key": State.open().api_key(config),
        "model": "pixtral-nano",
        "untrained": False,
        "dashboard": f"http://127.0.0.1:{config.ray.dashboard_port}",
        "metrics": f"http://127.0.0.1:{config.ray.metrics_port}/metrics",
        "prometheus": None,
    }
    assert pixtral.up("--json").stdout == result.stdout


def test_a_second_up_says_so(pixtral):
    first, second = pixtral.up(), pixtral.up()
    assert second.exit_code == 0
    assert second.stdout == first.stdout.replace("pixtral is up.", "pixtral already runs.")


def test_up_without_a_key(pixtral):
    result = pixtral.up("--no-auth")
    assert not running_config().gateway.auth
    assert "Authorization" not in result.stdout
    assert "sk-pixtral" not in result.stdout


def test_the_ray_token_is_never_printed(pixtral):
    (State.open().folder / "ray-token").write_text("t0ken")
    result = pixtral.up()
    assert "t0ken" not in result.output


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--model", "/nowhere"], "no model folder /nowhere"),
        (["--tp", "5"], "--tp 5: 5 ranks do not divide"),
        (["--port", "0"], "--port 0: must be between 1 and 65535"),
        (["--tp", "0"], "--tp 0: must be at least 1"),
    ],
)
def test_what_cannot_work_is_one_line(pixtral, args, reason):
    assert reason in one_line(pixtral.up(*args))
    assert not pixtral.cluster.running


def test_a_cluster_that_fails_is_one_line(pixtral):
    pixtral.cluster.deploy_errors = [ClusterError("Vision: no room")]
    assert one_line(pixtral.up()) == "pixtral: Vision: no room"
    assert not pixtral.cluster.running


def test_in_the_foreground_a_signal_stops_everything(pixtral):
    main = threading.get_ident()

    def terminate_when_up():
        while (running := State.open().running()) is None or not running.ready:
            time.sleep(0.01)
        time.sleep(0.2)
        signal.pthread_kill(main, signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    killer = threading.Thread(target=terminate_when_up)
    killer.start()
    result = pixtral("up", "--config", pixtral.config_file)
    killer.join()
    assert result.exit_code == 130
    assert "pixtral is up." in result.stdout
    assert not pixtral.cluster.running
    assert State.open().running() is None
    assert signal.getsignal(signal.SIGTERM) == before


def test_in_the_foreground_down_elsewhere_ends_it(pixtral):
    def down_when_up():
        while (running := State.open().running()) is None or not running.ready:
            time.sleep(0.01)
        State.open().note_stopped()

    stopper = threading.Thread(target=down_when_up)
    stopper.start()
    assert pixtral("up", "--config", pixtral.config_file).exit_code == 0
    stopper.join()


def test_down_twice(pixtral):
    pixtral.up()
    assert pixtral("down").exit_code == 0
    assert not pixtral.cluster.running
    again = pixtral("down")
    assert (again.exit_code, again.stdout) == (0, "nothing is running\n")


def test_ask_streams_the_answer_and_accounts_for_it(pixtral):
    pixtral.up()
    result = pixtral("ask", "What is here?", "--max-tokens", "5", "--seed", "7")
    assert result.exit_code == 0
    assert result.stdout == "Three shapes\n"
    assert "16 text + 204 image tokens in, 3 out" in result.stderr
    assert "cost $0.000458" in result.stderr
    assert "untrained" not in result.stderr
    (body,) = pixtral.cluster.gateway.bodies
    assert (body["model"], body["max_tokens"], body["seed"]) == ("first", 5, 7)


def test_an_untrained_model_says_so_wherever_it_answers(pixtral):
    with open(pixtral.config_file, "a") as file:
        file.write("model: {untrained: true}\n")
    assert "pixtral-nano is untrained" in pixtral.up().stdout
    assert "nano is untrained" in pixtral("ask", "Hi").stderr


def test_ask_for_scripts(pixtral):
    pixtral.up()
    answer = json.loads(pixtral("ask", "Hi", "--json", "--model", "nano").stdout)
    assert (answer["text"], answer["cost_total"]) == ("Three shapes", "0.000458")


def test_ask_with_a_bad_picture_is_one_line(pixtral):
    pixtral.up()
    assert "is not a JPEG" in one_line(pixtral("ask", "Hi", "--image", __file__))


def test_ask_when_nothing_runs_says_what_to_do(pixtral):
    assert one_line(pixtral("ask", "Hi")).endswith("start it with `pixtral up`")


def test_another_system_is_never_sent_our_key(pixtral):
    pixtral.up()
    other = FakeGateway(events=ANSWER)
    with other.serve() as root:
        pixtral("ask", "Hi", "--url", f"{root}/v1")
        pixtral("ask", "Hi", "--url", f"{root}/v1/", "--key", "sk-theirs")
    assert other.keys == [None, "Bearer sk-theirs"]


def test_status_of_a_running_system(pixtral):
    pixtral.up()
    result = pixtral("status")
    assert result.exit_code == 0
    assert re.search(r"started \d+ s ago, ready\n", result.stdout)
    assert re.search(r"Gateway +healthy +1\n", result.stdout)
    assert re.search(r"Vision +updating +2\n +x\n", result.stdout)
    assert "1 running, 0 waiting, 120 of 128 KV blocks free (6% used), no token" in result.stdout


def test_status_for_scripts_is_strict_json(pixtral):
    pixtral.up()

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    status = json.loads(pixtral("status", "--json").stdout, parse_constant=refuse)
    assert status["ready"]
    assert status["tiers"][0] == {
        "name": "Gateway",
        "status": "HEALTHY",
        "replicas": 1,
        "message": "",
    }
    assert status["groups"][0]["stats"]["blocks_free"] == 120
    assert status["groups"][0]["token_age_s"] is None


def test_status_that_is_not_ready_says_why_and_fails(pixtral):
    pixtral.up()
    pixtral.cluster.gateway.ready = False
    pixtral.cluster.gateway.reasons = ("group a is silent",)
    result = pixtral("status")
    assert result.exit_code == 1
    assert "NOT ready: group a is silent" in result.stdout


def test_status_of_nothing(pixtral):
    assert one_line(pixtral("status")).endswith("start it with `pixtral up`")


def test_doctor_finds_nothing_wrong_here(pixtral):
    result = pixtral("doctor", "--config", pixtral.config_file)
    assert result.exit_code == 0, result.stdout
    subjects = [line.split()[1] for line in result.stdout.splitlines()]
    assert subjects == [
        *("python", "torch", "ray", "GPUs", "limits", "cgroup", "clock", "/dev/shm", "disk"),
        *("ports", "accounts", "model", "weights", "ranks", "memory"),
    ]


def test_doctor_fails_with_what_to_do(pixtral):
    result = pixtral("doctor", "--config", pixtral.config_file, "--tp", "3", "--json")
    assert result.exit_code == 1
    (bad,) = [finding for finding in json.loads(result.stdout) if not finding["ok"]]
    assert bad["subject"] == "ranks"
    assert "this model allows 1, 2, 4" in bad["advice"]


def test_doctor_does_not_mistake_our_own_ports_for_somebody_elses(pixtral):
    pixtral.up()
    result = pixtral("doctor", "--config", pixtral.config_file)
    assert result.exit_code == 0, result.stdout
    assert "in use by the running system" in result.stdout
