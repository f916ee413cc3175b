import io
import json
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ops import progress, vitals
from ops.bench.ports import free_ports
from ops.edge import Endpoints, Health
from ops.overview import Overview
from ops.state import Running, State
from ops.status import overview, overviews
from ops.vitals import Load, Today, Vitals
from serve_app.cluster import ClusterStatus
from serve_app.config import load_config
from serve_app.gateway.admin.groups import GroupsAnswer
from tests.ops.fakes import write_config, write_model

SERVE: dict[str, Any] = {
    "applications": {
        "pixtral": {
            "status": "RUNNING",
            "message": "",
            "deployments": {
                "Gateway": {
                    "status": "HEALTHY",
                    "message": "",
                    "replicas": [{"replica_id": "g", "state": "RUNNING"}],
                },
                "DecoderGroup": {
                    "status": "UPSCALING",
                    "message": "one more comes",
                    "replicas": [
                        {"replica_id": "a", "state": "RUNNING"},
                        {"replica_id": "b", "state": "STARTING"},
                    ],
                },
            },
        }
    }
}
METRICS = """\
# TYPE ray_pixtral_decoder_kv_blocks gauge
ray_pixtral_decoder_kv_blocks{group="a",deployment="DecoderGroup"} 128
ray_pixtral_decoder_kv_blocks_free{group="a"} 96
ray_pixtral_decoder_running_sequences{group="a"} 3
ray_pixtral_decoder_waiting_sequences{group="a"} 2
ray_pixtral_decoder_token_age_seconds{group="a"} 0.5
ray_pixtral_decoder_generated_tokens{group="a"} 1000
ray_pixtral_decoder_step_seconds_total{group="a"} 50
ray_pixtral_decoder_kv_blocks{group="of-a-group-that-died"} 128
ray_serve_replica_processing_queries{deployment="Gateway",replica="x"} 4
ray_serve_replica_processing_queries{deployment="Gateway",replica="y"} 1
ray_serve_deployment_queued_queries{deployment="DecoderGroup"} 7
ray_node_gpus_utilization{nothing="of ours"} 1
"""
GROUPS: dict[str, Any] = {
    "data": [
        {
            "group": "a",
            "token_age_s": 0.5,
            "token_timeout_s": 30.0,
            "rank_pids": [17, 18],
            "stats": {
                "running": 3,
                "waiting": 2,
                "blocks_total": 128,
                "blocks_free": 96,
                "prompt_tokens_total": 400,
                "cached_tokens_total": 100,
                "generated_tokens_total": 1000,
                "drafted_tokens_total": 0,
                "accepted_tokens_total": 0,
                "put_back_total": 0,
                "recomputed_tokens_total": 0,
                "steps_total": 500,
                "step_seconds_total": 50.0,
            },
        }
    ],
    "silent": 0,
}
USAGE = {
    "total": {
        "requests": 12,
        "picture_requests": 3,
        "text_tokens": 100,
        "image_tokens": 50,
        "output_tokens": 25,
        "net_usd": "1.5",
    }
}


class Ports:
    """The gateway's, the dashboard's and the metrics' port, each asked for a key of its own."""

    def __init__(self, config):
        self.config = config
        self.keys = {}
        self.answers = {
            "/readyz": (200, json.dumps({"ready": True, "reasons": []})),
            "/admin/usage": (200, json.dumps(USAGE)),
            "/admin/groups": (200, json.dumps(GROUPS)),
            "/api/serve/applications/": (200, json.dumps(SERVE)),
            "/metrics": (200, METRICS),
        }
        self.delay_s = 0.0

    @contextmanager
    def served(self):
        ports = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                time.sleep(ports.delay_s)
                ports.keys[path] = self.headers["Authorization"]
                status, text = ports.answers.get(path, (404, ""))
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format, *args):
                """Quiet."""

        ray = self.config.ray
        with ExitStack() as servers:
            for port in (self.config.gateway.port, ray.dashboard_port, ray.metrics_port):
                server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
                threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
                servers.callback(server.server_close)
                servers.callback(server.shutdown)
            yield


@pytest.fixture
def running(tmp_path):
    file = write_config(tmp_path / "config.yaml", free_ports(4))
    config = load_config(file, {"model.path": str(write_model(tmp_path / "nano"))})
    return Running(config, started_at=time.time() - 5, ready=True)


@pytest.fixture
def state(tmp_path):
    (tmp_path / "ray-token").write_text("t0ken\n")
    return State(tmp_path)


@pytest.fixture
def ports(running):
    made = Ports(running.config)
    with made.served():
        yield made


def refuse(config, folder):
    raise AssertionError("the slow way was not needed")


def test_everything_is_read_at_once_each_with_its_own_key(running, state, ports):
    ports.delay_s = 0.3
    started = time.monotonic()
    seen = vitals.look(running.config, state.folder, "sk-pixtral-admin")
    assert time.monotonic() - started < 4 * ports.delay_s
    assert ports.keys == {
        "/api/serve/applications/": "Bearer t0ken",
        "/admin/usage": "Bearer sk-pixtral-admin",
        "/admin/groups": "Bearer sk-pixtral-admin",
        "/metrics": None,
        "/readyz": None,
    }
    assert seen.cluster is not None
    assert [(t.name, t.status, t.replicas) for t in seen.cluster.tiers] == [
        ("Gateway", "HEALTHY", 1),
        ("DecoderGroup", "UPSCALING", 2),
    ]
    (pulse,) = seen.cluster.pulses
    assert pulse["stats"]["blocks_free"] == 96
    assert seen.load == {"Gateway": Load(5, 0), "DecoderGroup": Load(0, 7)}
    assert seen.today == Today(requests=12, tokens=175, net_usd="1.5")


def test_one_screen(running, state, ports):
    text = overview(running, state, refuse).as_text()
    for line in (
        "  tier            status      replicas   in flight   queued",
        "  Gateway         healthy            1           5        0",
        "  DecoderGroup    upscaling          2           0        7",
        "    one more comes",
        "  group a: 3 running, 2 waiting, 96 of 128 KV blocks free (25% used),"
        " last token 0.5 s ago",
        "  20.0 tokens/s generated while computing",
        "  today (UTC): 12 requests, 175 tokens, $1.50",
    ):
        assert line in text.splitlines()
    assert len(text.splitlines()) <= 24, "more than one screen"


def test_for_scripts(running, state, ports):
    values = overview(running, state, refuse).as_dict()
    assert values["today"] == {"requests": 12, "tokens": 175, "net_usd": "1.5"}
    assert values["load"]["Gateway"] == {"in_flight": 5, "queued": 0}
    assert values["tokens_per_s"] == 20.0


def test_live_rates_are_of_the_time_between(running, state, ports, monkeypatch):
    monkeypatch.setattr("ops.status.REFRESH_S", 0.2)
    screens = overviews(running, state, refuse)
    next(screens)
    later = json.dumps(GROUPS).replace(
        '"generated_tokens_total": 1000', '"generated_tokens_total": 1100'
    )
    ports.answers["/admin/groups"] = (200, later)
    ports.keys.clear()
    second = next(screens)
    assert ports.keys["/admin/groups"] == f"Bearer {state.api_key(running.config)}"
    assert second.live
    assert 1 < (second.tokens_per_s or 0) <= 100 / 0.2


def test_a_day_as_the_real_admin_api_tells_it(system):
    async def write(books):
        await books.request(system.key, "2026-11-22", text=1_000_000, image=50, output=7)
        await books.request(system.key, "2026-11-21", text=1)

    system.books(write)
    endpoints = Endpoints(system.url.removesuffix("/v1"), "", "")
    found = vitals.brought(endpoints, system.secrets["admin"], "2026-11-22")
    assert found is not None
    assert (found.requests, found.tokens) == (1, 1_000_057)
    assert found.net_usd.startswith("2.0001")
    assert vitals.brought(endpoints, system.secrets["member"], "2026-11-22") is None


def test_nothing_generated_yet_is_no_rate(running, state, ports):
    (young,) = GROUPS["data"]
    idle = {**young, "stats": {**young["stats"], "generated_tokens_total": 0}}
    ports.answers["/admin/groups"] = (200, json.dumps({"data": [idle], "silent": 0}))
    seen = overview(running, state, refuse)
    assert seen.tokens_per_s is None
    assert "tokens/s" not in seen.as_text()


def test_a_restarted_group_makes_no_negative_rate():
    def at(when, generated):
        return Vitals(when, None, Health(True, True), generated=generated, step_s=10.0)

    assert at(2.0, 50).tokens_per_s(at(1.0, 500)) == 5.0
    assert at(2.0, 500).tokens_per_s(at(1.0, 400)) == 100.0


def test_what_does_not_answer_is_left_out(running, state, ports):
    for path in ("/admin/usage", "/admin/groups", "/metrics"):
        ports.answers[path] = (503, "")
    seen = overview(running, state, refuse)
    assert (seen.today, seen.tokens_per_s, seen.cluster.pulses) == (None, None, ())
    assert "today" not in seen.as_text()


def test_the_groups_own_word_goes_before_what_was_scraped(running, state, ports):
    """A scrape may be ten seconds old, and has no pids for a runbook."""
    ports.answers["/metrics"] = (200, METRICS.replace('{group="a"} 3', '{group="a"} 0'))
    (group,) = overview(running, state, refuse).as_dict()["groups"]
    assert group["stats"]["running"] == 3
    assert group["rank_pids"] == [17, 18]
    assert "late" not in group


def test_a_key_that_may_not_see_the_groups_gets_what_was_scraped(running, state, ports):
    ports.answers["/admin/groups"] = (403, "{}")
    seen = overview(running, state, refuse)
    (group,) = seen.as_dict()["groups"]
    assert (group["group"], group["stats"]["running"], group["late"]) == ("a", 3, True)
    assert "last token 0.5 s ago, all that up to 10 s ago" in seen.as_text()
    assert seen.tokens_per_s == 20.0


def test_a_silent_group_and_one_that_has_drawn_no_token(running, state, ports):
    (young,) = GROUPS["data"]
    told = {"data": [{**young, "token_age_s": None}], "silent": 1}
    ports.answers["/admin/groups"] = (200, json.dumps(told))
    seen = overview(running, state, refuse)
    text = seen.as_text()
    assert "KV blocks free (25% used), no token yet" in text
    assert "a decoder group does not answer: it gave no sign of life" in text
    assert seen.as_dict()["groups"][0]["token_age_s"] is None


def test_the_groups_as_the_gateway_tells_them():
    """What is read above is what the route answers."""
    answer = GroupsAnswer.model_validate(GROUPS)
    assert answer.model_dump(mode="json") == GROUPS


def test_without_the_dashboard_serve_itself_is_asked(running, state, ports):
    ports.answers["/api/serve/applications/"] = (500, "")
    reported = ClusterStatus(False, "NOT_STARTED", "not running")
    seen = overview(running, state, lambda config, folder: reported)
    assert seen.cluster is reported


def test_the_metrics_exist():
    """Spelled out in vitals.py, as their home imports Ray."""
    text = Path(vitals.__file__).parent.parent.joinpath("serve_app/telemetry.py").read_text()
    for name in (*vitals.STATS.values(), vitals.TOKEN_AGE, vitals.STEP_SECONDS):
        assert f'"pixtral_decoder_{name}"' in text


def test_serve_reports_what_is_read():
    """The answer above is made up; its shape is Ray's own."""
    from ray.serve import schema

    application = SERVE["applications"]["pixtral"]
    assert "applications" in schema.ServeInstanceDetails.model_fields
    assert set(application) <= set(schema.ApplicationDetails.model_fields)
    for tier in application["deployments"].values():
        assert set(tier) <= set(schema.DeploymentDetails.model_fields)
        assert tier["status"] in [status.value for status in schema.DeploymentStatus]
        for replica in tier["replicas"]:
            assert set(replica) <= set(schema.ReplicaDetails.model_fields)


def test_live_shows_each_screen_and_ends_quietly_with_ctrl_c():
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True)

    def screens():
        yield "first"
        assert "first" in out.getvalue(), "shown only at the end"
        yield "second"
        raise KeyboardInterrupt

    progress.show_live(screens(), terminal)
    assert "second" in out.getvalue()


def test_not_ready_is_said(running):
    cluster = ClusterStatus(True, "RUNNING", "")
    seen = Overview(running, cluster, Health(True, False, ("group a is silent",)))
    assert "NOT ready: group a is silent" in seen.as_text()
    assert not seen.ready
