"""What goes wrong: processes killed, the database paused."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.e2e.system import Home

GATEWAY = "ServeReplica:pixtral:Gateway"
GROUP = "ServeReplica:pixtral:DecoderGroup"
RANK = "ray::Rank"
PAUSE_S = 3.0
REPLACED_S = 90.0


@dataclass
class Progress:
    """How many requests have ended, for havoc to strike in the thick of them."""

    total: int
    ended: int = 0
    _step: asyncio.Event = field(default_factory=asyncio.Event)

    def tick(self) -> None:
        self.ended += 1
        self._step.set()

    async def reached(self, share: float) -> None:
        while self.ended < share * self.total:
            self._step.clear()
            await self._step.wait()


@dataclass
class Killer:
    """Kills a gateway, a decoder replica or a rank, each kind in turn from a random first."""

    home: Home
    dice: random.Random
    killed: list[str] = field(default_factory=list)

    async def strike(self) -> None:
        """One process, of a kind that is not just being replaced."""
        kinds = (GATEWAY, GROUP, RANK)
        kind = kinds[len(self.killed) % len(kinds)]
        deadline = time.monotonic() + REPLACED_S
        while not (found := await asyncio.to_thread(self._processes, kind)):
            assert time.monotonic() < deadline, f"no {kind} was started again"
            await asyncio.sleep(0.5)
        with suppress(psutil.NoSuchProcess):
            self.dice.choice(found).kill()
            self.killed.append(kind)

    def _processes(self, kind: str) -> list[psutil.Process]:
        found = []
        for process in self.home.processes():
            with suppress(psutil.NoSuchProcess):
                if any(kind in part for part in process.cmdline()):
                    found.append(process)
        return found


async def pause(paused: Callable[[], AbstractContextManager[None]]) -> None:
    def hold() -> None:
        with paused():
            time.sleep(PAUSE_S)

    await asyncio.to_thread(hold)


@contextmanager
def sqlite_paused(path: Path) -> Iterator[None]:
    """Nobody can write: another process has the file's write lock."""
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")


async def wreak(
    progress: Progress,
    killer: Killer,
    kills: int,
    pauses: int,
    paused: Callable[[], AbstractContextManager[None]],
) -> None:
    """Spread over the requests; ends when all has been done."""

    async def kill_on() -> None:
        for number in range(1, kills + 1):
            await progress.reached(number / (kills + 1))
            await killer.strike()

    async def pause_on() -> None:
        for number in range(1, pauses + 1):
            await progress.reached((number - 0.5) / pauses)
            await pause(paused)

    await asyncio.gather(kill_on(), pause_on())
