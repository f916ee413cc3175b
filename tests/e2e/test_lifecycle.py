"""Starting in the foreground, stopping, and failing to start: nothing is ever left behind."""

import signal
import socket
import subprocess

import pytest

from tests.e2e.system import UP_TIMEOUT_S, shared_memory


@pytest.fixture
def home(make_home):
    home = make_home()
    yield home
    home.pixtral("down")


def test_ctrl_c_ends_a_system_in_the_foreground_without_a_trace(home):
    before = shared_memory()
    up = home.spawn("up", "--config", str(home.config_file))
    assert up.stdout is not None
    printed = ""
    for line in up.stdout:  # ends early, and the test with it, if `up` dies
        printed += line
        if "pixtral ask" in line:
            break
    assert "pixtral is up." in printed
    assert home.processes()

    up.send_signal(signal.SIGINT)
    try:
        _, errors = up.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        up.kill()
        raise
    assert up.returncode == 130, errors
    assert home.leftovers(before) == {}
    # The key outlives the system.
    assert (home.state / "bootstrap_key").read_text().strip() in printed


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--model", "/nowhere"], "there is no model folder /nowhere"),
        (["--tp", "3"], "--tp 3: 3 ranks do not divide"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_what_cannot_start_is_one_line_and_leaves_nothing(home, args, reason):
    before = shared_memory()
    result = home.pixtral("up", "--detach", "--config", str(home.config_file), *args)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("pixtral: ")]
    assert reason in line
    assert "Traceback" not in result.stderr
    assert home.leftovers(before) == {}


def test_a_taken_port_is_one_line_and_leaves_nothing(home):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        result = home.pixtral(
            "up", "--detach", "--config", str(home.config_file), "--port", port,
            timeout_s=UP_TIMEOUT_S,
        )  # fmt: skip
    assert result.returncode == 1
    assert f"port {port} (gateway.port) is taken" in result.stderr
    assert home.processes() == []


def test_down_where_nothing_runs(home):
    result = home.pixtral("down")
    assert (result.returncode, result.stdout) == (0, "nothing is running\n")
