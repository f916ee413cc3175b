"""A PostgreSQL server for tests; where it is not installed they are skipped, in CI they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from ops.bench import postgres


class PostgresServer(postgres.PostgresServer):
    def __init__(self, parent: Path | None = None) -> None:
        try:
            super().__init__(parent)
        except postgres.PostgresMissingError as error:
            pytest.skip(str(error))
