"""What stays on disk between commands: keys, accounts and a note of what runs.

    $PIXTRAL_STATE or ~/.local/state/pixtral-serve      0700
    ├── bootstrap_key      0600   the first API key
    ├── pepper             0600   without it no stored key can be checked: keep a copy
    ├── accounting.sqlite  0600   the ledger, unless the config names a database
    ├── journal/                  what this machine's groups computed, until it is in the ledger
    ├── prometheus/                what `up --observe` recorded, bounded
    ├── running.json       0600   the config in use, there from `up` to `down`
    └── lock                      one `up` or `down` at a time

All but running.json survive `pixtral down`.

Whether the system noted in running.json still answers is not known here (see ``edge.py``).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ops.problem import Problem
from serve_app.config import Config, ConfigError, parse_config

KEY_PREFIX = "sk-pixtral-"
_KEY_BYTES = 24  # 192 random bits


@dataclass(frozen=True, slots=True)
class Running:
    """What `up` started, when (seconds since the epoch), and whether it got ready."""

    config: Config
    started_at: float
    ready: bool


@dataclass(frozen=True, slots=True)
class State:
    folder: Path

    @classmethod
    def open(cls, environment: Mapping[str, str] = os.environ) -> State:
        """The state folder, made if it is missing.

        Raises:
            Problem: it cannot be made.
        """
        chosen = environment.get("PIXTRAL_STATE")
        home = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
        folder = Path(chosen) if chosen else Path(home) / "pixtral-serve"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise Problem(f"the state folder {folder} cannot be made: {error.strerror}") from error
        return cls(folder.resolve())

    @property
    def key_file(self) -> Path:
        return self.folder / "bootstrap_key"

    @property
    def pepper_file(self) -> Path:
        return self.folder / "pepper"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.folder / 'accounting.sqlite'}"

    @property
    def journal_folder(self) -> Path:
        return self.folder / "journal"

    def api_key(self, config: Config) -> str:
        """The key in ``gateway.api_key_file`` (else in ``key_file``), made at the first call.

        Raises:
            Problem: the file holds something else, or cannot be read or made.
        """
        file = config.gateway.api_key_file or self.key_file
        try:
            if not file.exists():
                write_private(file, KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES) + "\n")
            key = file.read_text().strip()
        except OSError as error:
            raise Problem(f"the key file {file} cannot be used: {error.strerror}") from error
        if not key.startswith(KEY_PREFIX):
            raise Problem(f"{file} holds no key (they start with {KEY_PREFIX}); move it away")
        return key

    def running(self) -> Running | None:
        """What was noted at the last `up`; None after a `down`.

        Raises:
            Problem: the note was written by another version and cannot be understood.
        """
        file = self._running_file
        try:
            values = json.loads(file.read_text())
            return Running(
                parse_config(values["config"], source=str(file)),
                values["started_at"],
                values["ready"],
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
            raise Problem(f"{file} cannot be understood ({error}); remove it") from error

    def note_running(self, config: Config, *, ready: bool) -> None:
        note = {
            "config": config.model_dump(mode="json"),
            "started_at": time.time(),
            "ready": ready,
        }
        write_private(self._running_file, json.dumps(note, indent=2) + "\n")

    def note_stopped(self) -> None:
        self._running_file.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Held while the system is started or stopped.

        Raises:
            Problem: another command holds it.
        """
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Problem("another `pixtral up` or `down` is at work; wait for it") from None
            yield

    @property
    def _running_file(self) -> Path:
        return self.folder / "running.json"


def write_private(file: Path, text: str) -> None:
    """Write ``file`` whole or not at all, readable by its owner only."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
    draft.replace(file)
