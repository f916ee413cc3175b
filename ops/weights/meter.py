"""How far a long read is: a bar on a terminal, a line every half minute elsewhere. On stderr."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ops.memory import size

_LINE_EVERY_S = 30.0


@dataclass
class Meter:
    """``expect`` starts a stretch of work; ``add`` may be called from any thread."""

    say: Callable[[str], None]
    bar: Progress | None = None
    clock: Callable[[], float] = time.monotonic
    _name: str = ""
    _total: int = 0
    _done: int = 0
    _started: float = 0.0
    _said: float = 0.0
    _task: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, name: str, total: int) -> None:
        with self._lock:
            self._name, self._total, self._done = name, total, 0
            self._started = self._said = self.clock()
            if self.bar is not None:
                if self._task is not None:
                    self.bar.update(self._task, visible=False)  # type: ignore[arg-type]
                self._task = self.bar.add_task(name, total=total)

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self.bar is not None and self._task is not None:
                self.bar.advance(self._task, count)  # type: ignore[arg-type]
                return
            now = self.clock()
            if now - self._said < _LINE_EVERY_S:
                return
            self._said = now
            rate = self._done / (now - self._started)
        self.say(f"{self._name}: {size(self._done)} of {size(self._total)}, {size(int(rate))}/s")


@contextmanager
def metered(console: Console) -> Iterator[Meter]:
    def say(line: str) -> None:
        console.print(line, markup=False)

    if not console.is_terminal:
        yield Meter(say)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield Meter(say, bar)
