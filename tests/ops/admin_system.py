"""A running admin API for its commands: the real routes over an SQLite ledger, on loopback."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from typer.testing import CliRunner, Result

from ops import cli
from serve_app.accounting.database import Database, migrate
from serve_app.accounting.roles import Role
from tests.serve_app.accounting.books import Books, Key
from tests.serve_app.gateway.admin.conftest import Portal

Done = TypeVar("Done")


class AdminSystem:
    """``system("teams", "list")`` is the command, as an admin gives it.

    ``key`` is of team default/research, as ``Books`` charge it.
    """

    def __init__(self, folder: Path) -> None:
        self._database_url = f"sqlite:///{folder / 'ledger.db'}"
        migrate(self._database_url)
        self.portal = Portal(Database.open(self._database_url))
        self.url = ""
        self.secrets: dict[str, str] = {}
        self.key: Key
        self._set_up()

    def __call__(self, *words: str, role: str = "admin") -> Result:
        arguments = [*words, "--url", self.url, "--key", self.secrets[role]]
        return CliRunner().invoke(cli.app, arguments, catch_exceptions=False)

    def said(self, *words: str, role: str = "admin") -> str:
        """What a command that succeeds prints."""
        result = self(*words, role=role)
        assert result.exit_code == 0, result.output
        return result.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self.said(*words, "--json"))

    def refused(self, *words: str, role: str = "admin") -> str:
        """The one line of a command that fails."""
        result = self(*words, role=role)
        assert result.exit_code == 1, result.output
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        return str(line)

    def books(self, write: Callable[[Books], Awaitable[Done]]) -> Done:
        """Write into the ledger, from a loop and a connection of its own."""

        async def apart() -> Done:
            database = Database.open(self._database_url)
            try:
                return await write(Books(database))
            finally:
                await database.close()

        return asyncio.run(apart())

    def _set_up(self) -> None:
        async def set_up(books: Books) -> None:
            directory = Portal(books.database).office.directory
            await directory.ensure_default()
            team = await directory.create_team("research", actor="test")
            for role in Role:
                home = "default/research" if role is Role.MEMBER else "default/default"
                made = await directory.create_key(home, role.value, role=role, actor="test")
                self.secrets[role.value] = made.secret
                if role is Role.MEMBER:
                    self.key = Key(made.info.id, team.id, team.organisation_id, made.public_id)

        self.books(set_up)

    @contextmanager
    def served(self) -> Iterator[AdminSystem]:
        server = uvicorn.Server(
            uvicorn.Config(self.portal.app, host="127.0.0.1", port=0, log_level="error")
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(10)
