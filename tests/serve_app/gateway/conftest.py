from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
import uvicorn
from fastapi import APIRouter

from serve_app.accounting.office import Office, prepare
from serve_app.config import Config, parse_config
from serve_app.gateway import api
from shards.tokenizer import Tokenizer
from tests.postgres import PostgresServer
from tests.serve_app.gateway.client_cases import Endpoint
from tests.serve_app.gateway.engine_tiers import (
    MAX_CONTEXT_TOKENS,
    EngineTiers,
    mistral_common_data,
)
from tests.serve_app.gateway.store import Store

KEY = "sk-pixtral-gateway-tests-of-the-edge"
MODEL = "pixtral-large"
ALIAS = "pixtral-large-latest"
_NUMBERS = count()
both_stores = pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)


class Gateway:
    """create_app under uvicorn in a thread of its own, on a port that the system picks: reach it
    by ``endpoint``, steer it by ``tiers``, see what it cost in ``store``."""

    def __init__(
        self, tokenizer: Tokenizer, store: Store, config: Config, tiers: EngineTiers | None = None
    ) -> None:
        self.config = config
        self.store = store
        self.tiers = tiers or EngineTiers(tokenizer, config.preprocess)
        self.office = Office(config, self.tiers, owner=f"gateway-{time.monotonic_ns()}")
        app = api.create_app(
            config, self.tiers, tokenizer.vocabulary, self.office, MAX_CONTEXT_TOKENS
        )
        self._server = uvicorn.Server(
            uvicorn.Config(
                app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=5
            )
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert self._thread.is_alive(), "the server did not start"
            assert time.monotonic() < deadline, "the server did not start in time"
            time.sleep(0.002)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.endpoint = Endpoint(f"http://127.0.0.1:{port}", KEY, config.model.name)

    def stop_soon(self) -> None:
        """As an operator does."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Returns once everything is settled."""
        self.stop_soon()
        self._thread.join(timeout=20)
        assert not self._thread.is_alive()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(mistral_common_data("mistral_instruct_tokenizer_241114.model.v7m1"))


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with accounts in which nothing has happened yet, to be copied."""
    folder = tmp_path_factory.mktemp("founded")
    prepare(make_config(folder), KEY)
    return folder


@pytest.fixture(scope="session")
def founded_on_postgres(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> tuple[Path, str]:
    """The same, and the name of the database that has them."""
    folder, name = tmp_path_factory.mktemp("founded"), "founded_gateway"
    prepare(make_config(folder, accounting={"database_url": postgres.create(name)}), KEY)
    return folder, name


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """On SQLite, or where a test is marked with ``both_stores``, on PostgreSQL too."""
    folder = tmp_path / "accounts"
    if getattr(request, "param", "sqlite") == "sqlite":
        shutil.copytree(request.getfixturevalue("founded"), folder)
        yield Store.on_sqlite(folder)
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    founded, template = request.getfixturevalue("founded_on_postgres")
    shutil.copytree(founded, folder)
    name = f"gateway_{next(_NUMBERS)}"
    yield Store(folder, postgres.create(name, template))
    postgres.drop(name)


@pytest.fixture
def serve(tokenizer: Tokenizer, store: Store) -> Iterator[Callable[..., Gateway]]:
    """Serve with other settings: ``serve(gateway={"max_pictures": 1})``; again for another gateway
    over the same accounts, and over the same engine with ``tiers=first.tiers``.

    Its routes take FastAPI a quarter of a second to build, so /admin is there only if asked for.
    """
    gateways: list[Gateway] = []

    def start(
        tiers: EngineTiers | None = None, *, admin: bool = False, **sections: dict[str, object]
    ) -> Gateway:
        sections["accounting"] = {"database_url": store.url, **sections.get("accounting", {})}
        config = make_config(store.folder, **sections)
        with pytest.MonkeyPatch.context() as patch:
            if not admin:
                patch.setattr(api, "admin_routes", lambda *_, **__: APIRouter())
            gateways.append(Gateway(tokenizer, store, config, tiers))
        return gateways[-1]

    yield start
    for gateway in gateways:
        gateway.stop()


@pytest.fixture
def gateway(serve: Callable[..., Gateway]) -> Gateway:
    return serve()


@pytest.fixture
def endpoint(gateway: Gateway) -> Endpoint:
    return gateway.endpoint


def make_config(folder: Path, **sections: dict[str, object]) -> Config:
    model = {"path": "/models/" + MODEL, "aliases": (ALIAS,), **sections.pop("model", {})}
    accounting = {
        "database_url": f"sqlite:///{folder / 'accounting.sqlite'}",
        "pepper_file": folder / "pepper",
        "sweep_interval_s": 0.1,
        **sections.pop("accounting", {}),
    }
    return parse_config({"model": model, "accounting": accounting, **sections})
