"""A PostgreSQL server for every test that wants a database of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import PostgresServer


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
