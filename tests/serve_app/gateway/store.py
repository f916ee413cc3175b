"""The accounts of a gateway under test, read and changed from outside it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

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
    """``url`` is the database's; the pepper is in ``folder``."""

    folder: Path
    url: str

    @classmethod
    def on_sqlite(cls, folder: Path) -> Store:
        return cls(folder, f"sqlite:///{folder / 'accounting.sqlite'}")

    @property
    def file(self) -> Path:
        """Of an SQLite database."""
        return Path(self.url.removeprefix("sqlite:///"))

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Of a query whose places for ``values`` are question marks."""
        return asyncio.run(self._execute(query, values, Database.read))

    def execute(self, statement: str, *values: Any) -> None:
        """By hand, behind the gateway's back."""
        asyncio.run(self._execute(statement, values, Database.write))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else can write; SQLite only."""
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

    def reprice(self, **prices: int) -> None:
        """Of every gateway that starts from now on: other kinds cost what they did."""
        [last] = self.rows("SELECT * FROM price_versions ORDER BY effective_us DESC LIMIT 1")
        row = {**last, **prices, "id": last["id"] + 1, "created_by": ACTOR}
        row["effective_us"] += 1
        places = ", ".join("?" * len(row))
        self.execute(
            f"INSERT INTO price_versions ({', '.join(row)}) VALUES ({places})", *row.values()
        )

    def create_key(self, name: str = "mine", **terms: Any) -> str:
        """Its secret."""
        return self.change(
            lambda directory: directory.create_key(DEFAULT, name, actor=ACTOR, **terms)
        ).secret

    def change(self, work: Callable[[Directory], Awaitable[T]]) -> T:
        return asyncio.run(self._change(work))

    async def _execute(
        self,
        statement: str,
        values: Sequence[Any],
        opening: Callable[[Database], AbstractAsyncContextManager[AsyncConnection]],
    ) -> list[dict[str, Any]]:
        names = [f"value_{place}" for place in range(len(values))]
        for name in names:
            statement = statement.replace("?", f":{name}", 1)
        database = Database.open(self.url)
        try:
            async with opening(database) as connection:
                found = await connection.execute(
                    text(statement), dict(zip(names, values, strict=True))
                )
                return [dict(row) for row in found.mappings()] if found.returns_rows else []
        finally:
            await database.close()

    async def _change(self, work: Callable[[Directory], Awaitable[T]]) -> T:
        database = Database.open(self.url)
        try:
            return await work(Directory(database, read_pepper(self.folder / "pepper")))
        finally:
            await database.close()


def eventually(condition: Callable[[], bool], seconds: float = 8) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.01)
