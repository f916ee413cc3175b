"""The accounts of a gateway under test, read and changed from outside it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from serve_app.accounting.account_changes import DEFAULT
from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.hold import Scope
from serve_app.accounting.keys import read_pepper
from serve_app.accounting.limits import Limits
from serve_app.accounting.schema import WASTE_ACCOUNT

T = TypeVar("T")
ACTOR = "test"


@dataclass(frozen=True)
class Store:
    folder: Path

    @property
    def file(self) -> Path:
        return self.folder / "accounting.sqlite"

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        with closing(sqlite3.connect(self.file, timeout=10)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query, values)]

    @contextmanager
    def changed(self) -> Iterator[sqlite3.Connection]:
        """By hand, behind the gateway's back."""
        with closing(sqlite3.connect(self.file, timeout=10)) as connection, connection:
            yield connection

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else can write."""
        with closing(sqlite3.connect(self.file, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def holds(self) -> list[dict[str, Any]]:
        return self.rows("SELECT * FROM holds ORDER BY request_id")

    def outcomes(self) -> list[str | None]:
        """Of every hold, in order; None while it is open."""
        return [hold["outcome"] for hold in self.holds()]

    def lines(self, *, waste: bool = False) -> list[dict[str, Any]]:
        """A team's, or those of the waste account."""
        sign = "=" if waste else "<>"
        return self.rows(
            f"SELECT * FROM lines WHERE account_id {sign} ? ORDER BY id", WASTE_ACCOUNT
        )

    def tokens(self, *, waste: bool = False) -> dict[str, int]:
        """By kind."""
        counted: Counter[str] = Counter()
        for line in self.lines(waste=waste):
            counted[line["kind"]] += line["tokens"]
        return dict(counted)

    def billed(self) -> int:
        """All teams' lines, in nano-dollars."""
        return sum(line["nano_usd"] for line in self.lines())

    def held(self) -> int:
        return sum(row["held_nano_usd"] for row in self.rows("SELECT * FROM balances"))

    def closed(self) -> bool:
        """Nothing is held any more, and every hold was compared with the journal."""
        return all(hold["audited_us"] is not None for hold in self.holds())

    def limit_team(self, **limits: Any) -> None:
        self.change(
            lambda directory: directory.set_limits(
                Scope.TEAM, DEFAULT, Limits(**limits), actor=ACTOR
            )
        )

    def create_key(self, name: str = "mine", **terms: Any) -> str:
        """Its secret."""
        return self.change(
            lambda directory: directory.create_key(DEFAULT, name, actor=ACTOR, **terms)
        ).secret

    def change(self, work: Callable[[Directory], Awaitable[T]]) -> T:
        return asyncio.run(self._change(work))

    async def _change(self, work: Callable[[Directory], Awaitable[T]]) -> T:
        database = Database.open(f"sqlite:///{self.file}")
        try:
            return await work(Directory(database, read_pepper(self.folder / "pepper")))
        finally:
            await database.close()


def eventually(condition: Callable[[], bool], seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)
