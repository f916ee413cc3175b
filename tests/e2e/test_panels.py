"""Every panel and rule shows a number on a really running system, or the suite fails.

`pixtral up --observe` starts this machine's Prometheus with our rules; callers of every kind use
the system; then each expression, as committed, is asked of Prometheus.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace

import psutil
import pytest
import yaml

from ops import observe
from ops.bench.ports import free_ports
from ops.dashboards import series
from ops.dashboards.alerts import alerts
from ops.dashboards.promql import where
from ops.dashboards.serving_alerts import DECODER_QUEUE
from tests.dashboards.shipped import Expression, panel_expressions, rules
from tests.e2e.prometheus import Prometheus
from tests.e2e.system import UP_TIMEOUT_S, Home, System, shared_memory
from tests.e2e.traffic import Traffic
from tests.waiting import wait_until

# The first test pays for the start and for the traffic.
pytestmark = pytest.mark.timeout(600)
CALLERS = 12  # two run and two wait in the group, four wait for it and four for the gateway
# Ray's least interval is 1 s; below about 5 s a busy machine is too late to renew its gauges.
REPORT_MS = "5000"
SHOWN_WITHIN_S = 60.0
RECOVERED_WITHIN_S = 90.0
QUEUES = (
    series.DECODER.waiting,
    where(series.SERVE_QUEUED, deployment="DecoderGroup"),
    # Of Serve's proxy.
    where(series.SERVE_QUEUED, deployment="Gateway"),
)
# What the callers met, by a series that must have counted it.
MET = {
    "answered": where(series.GATEWAY.requests, status="200", code="ok"),
    "a bad request": where(series.GATEWAY.requests, status="400"),
    "no such key": where(series.GATEWAY.requests, status="401"),
    "no such model": where(series.GATEWAY.requests, status="404"),
    "too many in a minute": where(series.GATEWAY.requests, code="rate_limit_exceeded"),
    "no budget left": where(series.GATEWAY.requests, code="insufficient_quota"),
    "left": where(series.GATEWAY.outcomes, outcome="disconnected"),
    "its group died": series.GATEWAY.failures,
}
NO_GPU = "Ray reports GPUs only where there are some; never seen, as nothing of this ran on a GPU"
NO_FETCH = "pictures come from public hosts only, and tests reach none"
MAY_BE_EMPTY = {
    "pixtral-pictures / Fetching a picture": NO_FETCH,
    "pixtral-engine / GPU utilisation": NO_GPU,
    "pixtral-engine / GPU memory": NO_GPU,
    "pixtral-capacity / GPUs in work": NO_GPU,
    "pixtral-capacity / GPU memory in use": NO_GPU,
    "alert PixtralGpuMemoryFull": NO_GPU,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    if shutil.which("prometheus") is None:
        pytest.skip("needs package prometheus: apt install prometheus")
    folder = tmp_path_factory.mktemp("observed")
    http, dashboard, gcs, metrics, prometheus = free_ports(5)
    config = {
        "gateway": {"port": http, "max_ongoing_requests": 8},
        "decoder": {
            "tensor_parallel": 2,
            "kv_cache_bytes": 64 * 2**20,
            "max_batch_sequences": 2,
            "max_waiting": 2,
        },
        "ray": {"dashboard_port": dashboard, "gcs_port": gcs, "metrics_port": metrics},
        "observe": {"port": prometheus, "scrape_interval_s": 2},
    }
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return Home(folder / "state", tmp_path_factory.getbasetemp() / "models", file)


@pytest.fixture(scope="module")
def before() -> set[str]:
    return shared_memory()


@pytest.fixture(scope="module")
def system(home: Home, before: set[str]) -> Iterator[System]:
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_metrics_report_interval_ms", REPORT_MS)
            started = home.pixtral(
                *("up", "--observe", "--detach", "--json", "--config", str(home.config_file)),
                timeout_s=UP_TIMEOUT_S,
            )
        assert started.returncode == 0, started.stderr
        yield System(home, json.loads(started.stdout))
    finally:
        home.pixtral("down")


@pytest.fixture(scope="module")
def prometheus(system: System) -> Prometheus:
    return Prometheus(system.up["prometheus"])


@pytest.fixture(scope="module")
def used(system: System, prometheus: Prometheus) -> None:
    """Callers of every kind have been there."""
    traffic = Traffic(system)
    assert traffic.lose_a_rank()
    assert wait_until(lambda: ready(system), RECOVERED_WITHIN_S)
    budget = system.home.pixtral("teams", "set-budget", "default", "100")
    assert budget.returncode == 0, budget.stderr
    # Twice, as a series that appears with its first value has not grown yet.
    for _ in range(2):
        assert traffic.good() == [200, 200, 200, 200]
        assert traffic.bad() == [400, 400, 401, 404, 404]
        assert traffic.limited() == [
            (200, "ok"),
            (429, "rate_limit_exceeded"),
            (429, "insufficient_quota"),
        ]
        traffic.hang_up()
        # Pictures are encoded once: what they count must have been seen before it can grow.
        assert wait_until(lambda: prometheus.values(f"{series.VISION.seconds}_count") != [], 60, 1)
    with traffic.crowd(CALLERS) as statuses:
        formed = wait_until(lambda: all(queued(prometheus, name) for name in QUEUES), 60, 1)
    assert formed, [name for name in QUEUES if not queued(prometheus, name)]
    assert statuses <= {200, 503}


def ready(system: System) -> bool:
    return bool(json.loads(system.home.pixtral("status", "--json").stdout)["ready"])


def queued(prometheus: Prometheus, name: str) -> bool:
    """Whether it was seen above 0."""
    return any(most > 0 for most in prometheus.values(f"max_over_time({name}[10m])"))


def expressions() -> list[Expression]:
    """As committed; of an alert the values that it compares, as it gives none while all is well."""
    compared = {alert.name: alert.reads for alert in alerts()}
    return [
        *panel_expressions(),
        *(Expression(f"record {rule['record']}", rule["expr"]) for rule in rules("recording")),
        *(
            Expression(f"alert {rule['alert']}", text)
            for rule in rules("alerts")
            for text in compared[rule["alert"]]
        ),
    ]


def expected() -> list[Expression]:
    return [asked for asked in expressions() if asked.where not in MAY_BE_EMPTY]


def test_every_panel_and_rule_shows_a_number(prometheus: Prometheus, used: None) -> None:
    left: tuple[Expression, ...] = tuple(expected())
    deadline = time.monotonic() + SHOWN_WITHIN_S
    while (left := prometheus.unanswered(left)) and time.monotonic() < deadline:
        time.sleep(2)
    assert not left, "\n".join(f"{asked.where}: {asked.text}" for asked in left)
    assert not prometheus.unknown(expected())


@pytest.mark.parametrize("what", MET)
def test_what_the_callers_met_was_counted(prometheus: Prometheus, used: None, what: str) -> None:
    assert sum(prometheus.values(f"max_over_time({MET[what]}[10m])")) > 0


def test_the_queue_that_the_alert_sees_is_all_of_it(prometheus: Prometheus, used: None) -> None:
    """The group's waiting room held two at most; those that Serve held back count, too."""
    (alert,) = (each for each in alerts() if each.name == "PixtralQueueGrowing")
    assert DECODER_QUEUE in alert.expression
    assert max(prometheus.values(f"max_over_time(({DECODER_QUEUE})[10m:2s])")) > 2


def test_what_may_be_empty_is_and_is_understood(prometheus: Prometheus, used: None) -> None:
    excused = [asked for asked in expressions() if asked.where in MAY_BE_EMPTY]
    assert {asked.where for asked in excused} == set(MAY_BE_EMPTY)
    assert prometheus.unanswered(excused) == tuple(excused), "shows something: excuse it no longer"


def test_a_renamed_metric_would_be_noticed(prometheus: Prometheus, used: None) -> None:
    for name in set().union(*(asked.names() for asked in expected())):
        asked = next(asked for asked in expected() if name in asked.names())
        renamed = replace(asked, text=asked.text.replace(name, f"{name}_renamed"))
        assert f"{name}_renamed" in prometheus.unknown([renamed]), name


def test_the_rules_are_loaded_and_evaluate(prometheus: Prometheus, used: None) -> None:
    loaded = prometheus.get("rules")["groups"]
    names = {rule["name"] for group in loaded for rule in group["rules"]}
    assert names == {
        rule.get("alert") or rule["record"] for rule in [*rules("alerts"), *rules("recording")]
    }
    sick = [rule for group in loaded for rule in group["rules"] if rule["health"] == "err"]
    assert not sick


def test_every_place_is_scraped(system: System, prometheus: Prometheus, used: None) -> None:
    targets = prometheus.get("targets")["activeTargets"]
    up = {target["labels"]["instance"] for target in targets if target["health"] == "up"}
    ray, gateway = system.home.config.ray, system.home.config.gateway
    assert {f"127.0.0.1:{ray.metrics_port}", f"127.0.0.1:{gateway.port}"} <= up


def test_the_ray_dashboard_is_told_where_prometheus_is(system: System) -> None:
    status = json.loads(system.home.pixtral("status", "--json").stdout)
    assert status["prometheus"] == system.up["prometheus"]
    (dashboard,) = (
        process
        for process in system.home.processes()
        if "dashboard/dashboard.py" in " ".join(process.cmdline())
    )
    assert dashboard.environ()["RAY_PROMETHEUS_HOST"] == system.up["prometheus"]


def test_prometheus_listens_on_loopback_only_and_takes_no_orders(
    home: Home, prometheus: Prometheus
) -> None:
    (process,) = observe.processes(home.state)
    listening = [
        connection.laddr.ip
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
    for order in ("-/quit", "-/reload", "api/v1/admin/tsdb/snapshot"):
        assert prometheus.post(order) != 200, order


def test_down_leaves_nothing(home: Home, system: System, before: set[str]) -> None:
    """Last: the system is gone after it."""
    (process,) = observe.processes(home.state)
    assert home.pixtral("down").returncode == 0
    assert not process.is_running()
    assert observe.processes(home.state) == []
    assert not observe.answers(home.config)
    assert home.leftovers(before) == {}
