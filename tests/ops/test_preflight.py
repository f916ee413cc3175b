import os
import socket
import sqlite3

import psutil
import pytest

from ops import preflight
from ops.bench.ports import free_ports
from ops.memory import GIB
from ops.problem import Problem
from serve_app.config import load_config
from tests.ops.fakes import PIXTRAL_LARGE, write_config, write_model


def config(tmp_path, **overrides):
    file = write_config(tmp_path / "config.yaml", free_ports(4))
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(file, {"model.path": str(tmp_path / "model"), **dotted})


def test_a_good_model_passes(tmp_path):
    assert preflight.check_model(write_model(tmp_path / "model")).text.heads == 12


def test_a_missing_folder_is_named_with_what_to_do(tmp_path):
    with pytest.raises(Problem, match=r"no model folder .*nowhere; give one with --model"):
        preflight.check_model(tmp_path / "nowhere")


def test_a_folder_without_a_description(tmp_path):
    with pytest.raises(Problem, match="no model that can be served"):
        preflight.check_model(tmp_path)


def test_a_description_that_cannot_be_served_names_the_key(tmp_path):
    with pytest.raises(Problem, match="n_heads"):
        preflight.check_model(write_model(tmp_path / "model", n_heads="many"))


def test_a_description_without_weights(tmp_path):
    folder = write_model(tmp_path / "model")
    (folder / "consolidated.safetensors").unlink()
    with pytest.raises(Problem, match=r"holds no \*.safetensors"):
        preflight.check_model(folder)


def test_ranks_that_do_not_divide_the_heads(tmp_path):
    model = preflight.check_model(write_model(tmp_path / "model"))
    preflight.check_ranks(config(tmp_path, decoder__tensor_parallel=4), model)
    with pytest.raises(Problem, match=r"--tp 3: .*kv heads 4.*this model allows 1, 2, 4$"):
        preflight.check_ranks(config(tmp_path, decoder__tensor_parallel=3), model)


def test_too_little_memory_gives_the_numbers(tmp_path, monkeypatch):
    model = preflight.check_model(write_model(tmp_path / "model"))
    monkeypatch.setattr(preflight, "available_bytes", lambda: 64 * GIB)
    preflight.check_memory(config(tmp_path), model)
    with pytest.raises(
        Problem, match=r"too little memory: about 4\d\d\.\d GiB are .* 64\.0 GiB are"
    ):
        preflight.check_memory(config(tmp_path, decoder__tensor_parallel=2), PIXTRAL_LARGE)


def test_free_ports_pass(tmp_path):
    preflight.check_ports(config(tmp_path))


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("gateway.port", "choose another with --port"),
        ("ray.gcs_port", "change ray.gcs_port"),
        ("ray.dashboard_port", "change ray.dashboard_port"),
        ("ray.metrics_port", "change ray.metrics_port"),
    ],
)
def test_a_taken_port_names_key_holder_and_remedy(tmp_path, key, advice):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = config(tmp_path, **{key.replace(".", "__"): port})
        with pytest.raises(Problem) as problem:
            preflight.check_ports(taken)
    name = psutil.Process().name()
    assert (
        str(problem.value)
        == f"port {port} ({key}) is taken by {name} (process {os.getpid()}); {advice}"
    )


def test_one_port_asked_for_twice(tmp_path):
    twice = config(tmp_path, ray__metrics_port=8000, gateway__port=8000)
    with pytest.raises(Problem, match=r"gateway\.port and ray\.metrics_port are both 8000"):
        preflight.check_ports(twice)


def test_a_port_in_time_wait_is_free():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the server's side closes first and so keeps TIME_WAIT
        client.close()
    assert preflight.is_free(port, "127.0.0.1")


def test_accounts_that_are_not_there_yet_or_answer_are_fine(tmp_path):
    file = tmp_path / "accounting.sqlite"
    chosen = config(tmp_path, accounting__database_url=f"sqlite:///{file}")
    preflight.check_accounts(chosen)
    assert not file.exists()
    sqlite3.connect(file).close()
    preflight.check_accounts(chosen)


def test_accounts_that_do_not_answer_are_told(tmp_path):
    [port] = free_ports(1)
    url = f"postgresql://me@127.0.0.1:{port}/ledger"
    chosen = config(tmp_path, accounting__database_url=url)
    with pytest.raises(Problem, match=r"accounting\.database_url: the accounts cannot be reached"):
        preflight.check_accounts(chosen)
