import pytest

from ops.bench.ports import free_ports
from ops.edge import Endpoints, get_json, health, wait_ready
from serve_app.config import load_config
from tests.ops.fakes import FakeGateway


def endpoints(root):
    return Endpoints(root, dashboard="", metrics="")


@pytest.mark.parametrize(
    ("host", "root"),
    [("127.0.0.1", "http://127.0.0.1:9000"), ("::1", "http://[::1]:9000")],
)
def test_addresses_come_from_the_config(host, root):
    config = load_config(
        None,
        {
            "model.path": "x",
            "gateway.host": host,
            "gateway.port": 9000,
            "ray.dashboard_port": 9001,
            "ray.metrics_port": 9002,
        },
    )
    found = Endpoints.of(config)
    assert found.root == root
    assert found.base_url == f"{root}/v1"
    assert found.dashboard == "http://127.0.0.1:9001"
    assert found.metrics == "http://127.0.0.1:9002/metrics"


def test_ready_not_ready_and_nobody():
    gateway = FakeGateway()
    with gateway.serve() as root:
        assert health(endpoints(root)).ready
        gateway.ready, gateway.reasons = False, ("no group",)
        seen = health(endpoints(root))
        assert (seen.answering, seen.ready, seen.reasons) == (True, False, ("no group",))
    assert not health(endpoints(root)).answering


def test_waiting_ends_when_ready_or_when_time_is_up():
    gateway = FakeGateway(ready=False)
    with gateway.serve() as root:
        assert not wait_ready(endpoints(root), timeout_s=0).ready
        gateway.ready = True
        assert wait_ready(endpoints(root), timeout_s=0).ready


def test_a_proxy_in_the_environment_is_not_asked(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_ports(4)[0]}")
    with FakeGateway().serve() as root:
        assert health(endpoints(root)).ready


def test_json_and_status_of_any_path():
    with FakeGateway().serve() as root:
        assert get_json(f"{root}/v1/models", 5)[1]["data"][0] == {"id": "first"}
