"""What the gateway adds to bare Ray Serve: ``pixtral bench gateway``.

One Ray on loopback runs, one after the other, the bare applications of ``echo.py`` and the whole
system (authentication, tokenising, limits, durable holds, journal, settlement) over an engine whose
model takes no time (``decoder.simulate``). Each is loaded from a process of its own:

    peak      many clients, each asking again as soon as it is answered
    paced     half the bare application's peak, sent on time whatever becomes of the answers
    streams   few long answers side by side
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

from ray import serve
from ray.serve import Application

from ops import nano
from ops.bench import echo
from ops.bench.load import Load, Measured, run_load
from ops.bench.ports import free_ports
from ops.bench.postgres import PostgresServer
from ops.settings import bundled_folder
from serve_app import cluster
from serve_app.accounting.office import prepare
from serve_app.app import build
from serve_app.config import Config, load_config

CLIENTS = 32
STREAMS = 64
SHORT_TOKENS = 16
LONG_TOKENS = 200
# PostgreSQL's own way to make every commit slower.
SLOW_COMMIT_US = 5_000
KEY = "sk-pixtral-gateway-bench-of-the-whole-system"


@dataclass(frozen=True, slots=True)
class Row:
    """One application under one load. Times to first event; CPU of all its processes and the
    database's."""

    what: str
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    tokens_per_s: float
    cpu_ms_per_request: float
    failed: int
    beside_bare: str = ""

    def beside(self, ratio: float, of_what: str) -> Row:
        return replace(self, beside_bare=f"{ratio:.2f} x {of_what}")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a load goes; ``mark`` stands in a stream once for every event that brings tokens."""

    name: str
    url: str
    model: str = ""

    def peak(self, seconds: float) -> Load:
        return self._load(seconds, CLIENTS, SHORT_TOKENS)

    def paced(self, seconds: float, rate: float) -> Load:
        return self._load(seconds, 4 * CLIENTS, SHORT_TOKENS, rate)

    def streams(self, seconds: float) -> Load:
        return self._load(seconds, STREAMS, LONG_TOKENS)

    def _load(self, seconds: float, clients: int, tokens: int, rate: float | None = None) -> Load:
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": "How many squares are there?"}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
        }
        return Load(self.url, body, {"Authorization": f"Bearer {KEY}"}, seconds, clients, rate)


@dataclass(frozen=True, slots=True)
class Site:
    """Where everything runs."""

    config: Config
    state: Path
    postgres: PostgresServer


def run(seconds: float = 8.0) -> list[Row]:
    """Measure everything; about three minutes.

    Raises:
        RuntimeError: PostgreSQL is not installed, or nothing was answered.
    """
    with tempfile.TemporaryDirectory() as folder:
        config, state = system_config(Path(folder)), Path(folder)
        with patch.dict(os.environ, cluster.environment(config, state)):
            cluster.start(config, state)
            try:
                # Ray reads its environment when it is imported, and this process has imported it.
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    return process.submit(_drive, config, state, seconds).result()
            finally:
                cluster.stop(config, state)


def _drive(config: Config, state: Path, seconds: float) -> list[Row]:
    with closing(PostgresServer()) as postgres, cluster.connected(config, state):
        postgres.start()
        site = Site(with_books(config, postgres.create("ledger")), state, postgres)
        cluster.start_edge(config)
        meter = _Meter(site)
        root = f"http://127.0.0.1:{site.config.gateway.port}"
        with application_at(echo.build(4 * CLIENTS), "/bare"):
            bare = Target("bare Serve, same hops", f"{root}/bare/echo")
            peak = meter.row(f"{bare.name}: peak", bare.peak(seconds), SHORT_TOKENS)
            rate = peak.requests_per_s / 2
            paced = meter.row(
                f"{bare.name}: half its peak", bare.paced(seconds, rate), SHORT_TOKENS
            )
            each = Target("bare Serve, an item a token", f"{root}/bare/each")
            naive = meter.row(f"{each.name}: streams", each.streams(seconds), LONG_TOKENS)
        with application_at(build(site.config), "/"):
            ours = Target("pixtral-serve", f"{root}/v1/chat/completions", site.config.model.name)
            our_peak = meter.row(f"{ours.name}: peak", ours.peak(seconds), SHORT_TOKENS)
            our_paced = meter.row(
                f"{ours.name}: the same rate", ours.paced(seconds, rate), SHORT_TOKENS
            )
            our_streams = meter.row(f"{ours.name}: streams", ours.streams(seconds), LONG_TOKENS)
            with site.postgres.slow_commits(SLOW_COMMIT_US):
                slow = meter.row(
                    f"{ours.name}: peak, commits {SLOW_COMMIT_US // 1000} ms slower",
                    ours.peak(seconds),
                    SHORT_TOKENS,
                )
    return [
        peak,
        paced,
        naive,
        our_peak.beside(our_peak.requests_per_s / peak.requests_per_s, "requests/s of bare"),
        our_paced.beside(our_paced.p99_ms / paced.p99_ms, "p99 of bare"),
        our_streams.beside(our_streams.tokens_per_s / naive.tokens_per_s, "tokens/s of naive"),
        slow.beside(slow.requests_per_s / our_peak.requests_per_s, "requests/s of its own"),
    ]


@dataclass(frozen=True, slots=True)
class _Meter:
    """Loads a target and counts the CPU time of everything that served it."""

    site: Site

    def row(self, what: str, load: Load, tokens: int) -> Row:
        measured: Measured = run_load(load)
        before = self._cpu_s()
        measured = run_load(load, warm_up_s=0)
        cpu_s = self._cpu_s() - before
        return Row(
            what,
            measured.per_second,
            measured.first_ms(50),
            measured.first_ms(99),
            measured.answered * tokens / measured.seconds,
            1e3 * cpu_s / measured.answered,
            measured.failed,
        )

    def _cpu_s(self) -> float:
        return sum(
            sum(process.cpu_times()[:2])
            for process in (*cluster.processes(self.site.state), *self.site.postgres.processes())
        )


@contextmanager
def application_at(application: Application, prefix: str) -> Iterator[None]:
    name = prefix.strip("/") or cluster.APPLICATION
    serve.run(application, name=name, route_prefix=prefix)
    try:
        yield
    finally:
        serve.delete(name)


def system_config(folder: Path) -> Config:
    """The whole system with one group that computes nothing."""
    http, dashboard, gcs, metrics = free_ports(4)
    return load_config(
        None,
        {
            "model.path": str(nano.ensure(bundled_folder())),
            "gateway.port": http,
            "gateway.max_ongoing_requests": 8 * CLIENTS,
            "decoder.simulate": {},
            "decoder.max_batch_sequences": 2 * STREAMS,
            "decoder.journal_folder": str(folder / "journal"),
            "accounting.pepper_file": str(folder / "pepper"),
            "ray.dashboard_port": dashboard,
            "ray.gcs_port": gcs,
            "ray.metrics_port": metrics,
        },
    )


def with_books(config: Config, database_url: str) -> Config:
    """Its ledger there and ``KEY`` known to it."""
    accounting = config.accounting.model_copy(update={"database_url": database_url})
    kept = config.model_copy(update={"accounting": accounting})
    prepare(kept, KEY)
    return kept
