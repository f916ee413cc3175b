"""Both stores, fresh and migrated, for every test that keeps accounts, and whom tests trust.

Here, above all who use them: a session's fixture that a second conftest imports is made twice.
"""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest
import trustme

from serve_app.accounting.database import Database, migrate
from tests.postgres import PostgresServer

_NUMBERS = count()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Signs for the hosts that pictures are fetched from."""
    return trustme.CA()


@pytest.fixture(scope="session")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the session; whoever pauses or kills it brings it back."""
    # In memory, which outlives a killed server; it would not outlive the machine, nor would we.
    memory = Path("/dev/shm")
    server = PostgresServer(memory if memory.is_dir() else None)
    try:
        server.start()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    migrate(postgres.create("template_ledger"))
    return "template_ledger"


@pytest.fixture
def sqlite_url(tmp_path: Path, sqlite_template: Path) -> str:
    path = shutil.copy(sqlite_template, tmp_path / "ledger.db")
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    name = f"ledger_{next(_NUMBERS)}"
    yield postgres.create(name, postgres_template)
    postgres.drop(name)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """Of a migrated store that is this test's alone; the test runs on either kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    opened = Database.open(store_url)
    yield opened
    await opened.close()
