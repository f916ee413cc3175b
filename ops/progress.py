"""Steps shown as they happen: a spinner on a terminal, plain lines elsewhere. All on stderr.

✓ model      pixtral-nano, 31 M parameters                    1.2 s
⠙ Ray        starting on loopback …
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

_NAME_WIDTH = 10


@dataclass
class Step:
    """``outcome`` is what the finished step says; set it inside the ``with``."""

    outcome: str


class Progress:
    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[Step]:
        """Show ``doing`` until the block ends, then its outcome and how long it took."""
        started = time.monotonic()
        step = Step(outcome=doing)
        label = f"{name:<{_NAME_WIDTH}}"
        if self._console.is_terminal:
            with self._console.status(f"{label} {escape(doing)} …", spinner="dots"):
                yield step
        else:
            self._console.print(f"  {label} {doing} …", markup=False)
            yield step
        took = time.monotonic() - started
        self._console.print(
            f"[green]✓[/green] {label} {escape(step.outcome)} [dim]({took:.1f} s)[/dim]"
        )

    def note(self, text: str) -> None:
        """Something the reader should know, between the steps."""
        self._console.print(f"[yellow]![/yellow] {escape(text)}")


@contextmanager
def quiet_serve() -> Iterator[None]:
    """Keep Ray Serve's own chatter, which has no setting for a driver, out of what people read."""

    def matters(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger = logging.getLogger("ray.serve")
    logger.addFilter(matters)
    try:
        yield
    finally:
        logger.removeFilter(matters)


def show_live(screens: Iterable[str], console: Console | None = None) -> None:
    """Each screen in the place of the one before, on stdout, until they end or Ctrl-C."""
    with Live(console=console or Console(highlight=False), auto_refresh=False) as shown:
        try:
            for screen in screens:
                shown.update(Text(screen), refresh=True)
        except KeyboardInterrupt:
            return
