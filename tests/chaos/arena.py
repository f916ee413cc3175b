"""A system started by `pixtral up`, with three teams, for chaos to break loose in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.bench.ports import free_ports
from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.hold import Scope
from serve_app.accounting.keys import read_pepper
from serve_app.accounting.limits import Limits
from tests.e2e.system import UP_TIMEOUT_S, Home

LEASE_S = 8


@dataclass(frozen=True)
class Store:
    """``paused``: while inside, the database does not answer."""

    url: str
    gateways: int
    paused: Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Arena:
    home: Home
    store: Store
    url: str
    model: str

    @property
    def journals(self) -> Path:
        return self.home.state.parent / "journals"

    async def open_accounts(self, budget_nano_usd: int) -> dict[str, str]:
        """Keys by team: `rich` may spend what it likes, `poor` has the budget, as has a key of
        `careful`."""
        database = Database.open(self.store.url)
        try:
            directory = Directory(database, read_pepper(_pepper(self.home.state.parent)))
            keys = {}
            for team in ("rich", "poor", "careful"):
                await directory.create_team(team, actor="chaos")
                key = await directory.create_key(team, "chaos", actor="chaos")
                keys[team] = key.secret
            limits = Limits(budget_nano_usd=budget_nano_usd)
            await directory.set_limits(Scope.TEAM, "poor", limits, actor="chaos")
            await directory.set_limits(Scope.KEY, key.public_id, limits, actor="chaos")
            return keys
        finally:
            await database.close()

    def reconciliation(self) -> tuple[int, str]:
        """Exit code and words of the product's own reconciliation, engines included."""
        told = self.home.pixtral("usage", "reconcile")
        return told.returncode, told.stdout + told.stderr


@contextmanager
def arena(folder: Path, cache: Path, store: Store) -> Iterator[Arena]:
    config_file = folder / "config.yaml"
    config_file.write_text(yaml.safe_dump(_config(folder, store)))
    home = Home(folder / "state", cache, config_file)
    started = home.pixtral(
        *("up", "--detach", "--json", "--config", str(config_file)), timeout_s=UP_TIMEOUT_S
    )
    try:
        assert started.returncode == 0, started.stderr
        up = json.loads(started.stdout)
        yield Arena(home, store, up["base_url"], up["model"])
    finally:
        home.pixtral("down")


def _config(folder: Path, store: Store) -> dict[str, Any]:
    http, dashboard, gcs, metrics = free_ports(4)
    gateways = {"min_replicas": store.gateways, "max_replicas": store.gateways}
    return {
        "gateway": {"port": http, "autoscaling": gateways},
        "decoder": {
            "tensor_parallel": 1,
            "kv_cache_bytes": 64 * 2**20,
            "max_drafts": 4,
            "journal_folder": str(folder / "journals"),
            "autoscaling": {"min_replicas": 2, "max_replicas": 2},
        },
        "accounting": {
            "database_url": store.url,
            "pepper_file": str(_pepper(folder)),
            "hold_lease_s": LEASE_S,
            "sweep_interval_s": 0.5,
        },
        "ray": {"dashboard_port": dashboard, "gcs_port": gcs, "metrics_port": metrics},
    }


def _pepper(folder: Path) -> Path:
    return folder / "pepper"
