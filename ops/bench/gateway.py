"""What the gateway adds to bare Ray Serve: ``pixtral bench gateway``.

One Ray on loopback runs, side by side, the bare applications of ``echo.py`` and the whole system
(authentication, tokenising, limits, durable holds, journal, settlement) over an engine whose model
takes no time (``decoder.simulate``). They are loaded in turn (rounds.py), from another process:

    peak      many clients, each asking again as soon as it is answered; ours with slow commits too
    paced     half the bare application's peak, sent on time whatever becomes of the answers
    streams   few long answers side by side
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

from ray import serve
from ray.serve import Application

from ops import nano
from ops.bench import echo
from ops.bench.load import Load, run_load
from ops.bench.ports import free_ports
from ops.bench.postgres import PostgresServer
from ops.bench.rounds import Row, Sample, in_turn
from ops.settings import bundled_folder
from serve_app import cluster
from serve_app.accounting.office import prepare
from serve_app.app import build
from serve_app.config import Config, load_config

A = TypeVar("A")
R = TypeVar("R")
SCENARIOS = ("peak", "paced", "streams")
CLIENTS = 32
STREAMS = 64
SHORT_TOKENS = 16
LONG_TOKENS = 200
# PostgreSQL's own way to make every commit slower.
SLOW_COMMIT_US = 5_000
KEY = "sk-pixtral-gateway-bench-of-the-whole-system"


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
class Plan:
    """How much is measured: ``rounds`` of ``seconds`` each, of the chosen ``scenarios``."""

    seconds: float = 8.0
    rounds: int = 5
    scenarios: tuple[str, ...] = SCENARIOS


@dataclass(frozen=True, slots=True)
class Site:
    """Where everything runs."""

    config: Config
    state: Path
    postgres: PostgresServer

    def sample(self, load: Load) -> Sample:
        """One round, with the CPU time of everything that served it."""
        before: list[float] = []
        measured = run_load(load, ready=lambda: before.append(self._cpu_s()))
        return Sample(measured, self._cpu_s() - before[0])

    def slow_sample(self, load: Load) -> Sample:
        """The same while commits are slow."""
        with self.postgres.slow_commits(SLOW_COMMIT_US):
            return self.sample(load)

    def _cpu_s(self) -> float:
        return sum(
            sum(process.cpu_times()[:2])
            for process in (*cluster.processes(self.state), *self.postgres.processes())
        )


def run(plan: Plan) -> list[Row]:
    """Measure; six minutes for all of it.

    Raises:
        RuntimeError: PostgreSQL is not installed, or nothing was answered.
    """
    return on_ray(_drive, plan)


def on_ray(drive: Callable[[Config, Path, A], R], asked: A) -> R:
    """What ``drive`` returns, called with config, state folder and ``asked`` beside a Ray of its
    own, in a process of its own: Ray reads its environment when it is imported, and this process
    has imported it."""
    with tempfile.TemporaryDirectory() as folder:
        config, state = system_config(Path(folder)), Path(folder)
        with patch.dict(os.environ, cluster.environment(config, state)):
            cluster.start(config, state)
            try:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                    return process.submit(drive, config, state, asked).result()
            finally:
                cluster.stop(config, state)


def _drive(config: Config, state: Path, plan: Plan) -> list[Row]:
    with closing(PostgresServer()) as postgres, cluster.connected(config, state):
        postgres.start()
        site = Site(with_books(config, postgres.create("ledger")), state, postgres)
        cluster.start_edge(config)
        with (
            application_at(echo.build(4 * CLIENTS), "/bare"),
            application_at(build(site.config), "/"),
        ):
            return _measure(site, plan)


def _measure(site: Site, plan: Plan) -> list[Row]:
    bench = _Bench(site, plan)
    rows: list[Row] = []
    if "peak" in plan.scenarios:
        rows += bench.peaks()
    if "paced" in plan.scenarios:
        peak = rows[0] if rows else bench.bare_peak()
        rows += bench.paced(peak.requests_per_s / 2)
    if "streams" in plan.scenarios:
        rows += bench.streams()
    return rows


class _Bench:
    def __init__(self, site: Site, plan: Plan) -> None:
        root = f"http://127.0.0.1:{site.config.gateway.port}"
        self._site = site
        self._seconds = plan.seconds
        self._rounds = plan.rounds
        self._bare = Target("bare Serve, same hops", f"{root}/bare/echo")
        self._each = Target("bare Serve, an item a token", f"{root}/bare/each")
        self._ours = Target("pixtral-serve", f"{root}/v1/chat/completions", site.config.model.name)

    def bare_peak(self) -> Row:
        """By itself: to know at what rate to send."""
        peak = partial(self._site.sample, self._bare.peak(self._seconds))
        (row,) = self._in_turn({self._bare: peak}, "peak")
        return row

    def peaks(self) -> list[Row]:
        ours, slow = self._ours, replace(self._ours, name=f"{self._ours.name}, slow commits")
        own_peak = self._ours.peak(self._seconds)
        bare, own, late = self._in_turn(
            {
                self._bare: partial(self._site.sample, self._bare.peak(self._seconds)),
                ours: partial(self._site.sample, own_peak),
                slow: partial(self._site.slow_sample, own_peak),
            },
            "peak",
        )
        return [
            bare,
            own.compared(own.requests_per_s / bare.requests_per_s, "requests/s of bare"),
            late.compared(late.requests_per_s / own.requests_per_s, "requests/s of its own"),
        ]

    def paced(self, rate: float) -> list[Row]:
        """``rate``: requests/s."""
        bare, own = self._in_turn(
            {
                target: partial(self._site.sample, target.paced(self._seconds, rate))
                for target in (self._bare, self._ours)
            },
            "half of bare's peak",
        )
        return [bare, own.compared(own.p99_ms / bare.p99_ms, "p99 of bare")]

    def streams(self) -> list[Row]:
        naive, own = self._in_turn(
            {
                target: partial(self._site.sample, target.streams(self._seconds))
                for target in (self._each, self._ours)
            },
            "streams",
            LONG_TOKENS,
        )
        return [naive, own.compared(own.tokens_per_s / naive.tokens_per_s, "tokens/s of naive")]

    def _in_turn(
        self, loads: Mapping[Target, Callable[[], Sample]], what: str, tokens: int = SHORT_TOKENS
    ) -> tuple[Row, ...]:
        named = {f"{target.name}: {what}": load for target, load in loads.items()}
        return in_turn(self._rounds, named, tokens)


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
