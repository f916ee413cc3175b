"""A PostgreSQL server for measurements and tests: private folder and port, loopback only, gone with
whoever started it.

Its binaries come from Debian's ``postgresql``; they refuse to run as root, so a root caller starts
them as an unprivileged user. It works as in production (fsync stays on), and can be paused and
killed, to see what the ledger does then.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

_USER = "ledger"
_START_S = 60.0
_PR_SET_PDEATHSIG = 1


class PostgresMissingError(Exception):
    """Its binaries are not installed; says how to get them."""


def binaries() -> Path:
    """The newest installed server's.

    Raises:
        PostgresMissingError: there is none.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=_version)
    if not found:
        raise PostgresMissingError("needs package postgresql: apt install postgresql")
    return found[-1].parent


class PostgresServer:
    """Started by ``start``; ``kill`` ends it as a crash would, ``start`` again then recovers."""

    def __init__(self, parent: Path | None = None) -> None:
        """Its folder is made in ``parent``, else among the temporary ones."""
        self._binaries = binaries()
        self._folder = Path(tempfile.mkdtemp(prefix="pixtral-postgres-", dir=parent))
        self._password = secrets.token_hex(16)
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            shutil.chown(self._folder, *_unprivileged())
        self._initialise()

    def url(self, name: str) -> str:
        """Of a database, with the password of its owner."""
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self._port}/{name}"

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "32MB",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", *options],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                **self._as_user(),
            )
        deadline = time.monotonic() + _START_S
        while self._run("pg_isready", check=False).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.02)

    def create(self, name: str, template: str = "template0") -> str:
        """A new database, a copy of ``template``; its URL."""
        self._run("createdb", "--template", template, name)
        return self.url(name)

    def drop(self, name: str) -> None:
        self._run("dropdb", "--force", name)

    def processes(self) -> list[psutil.Process]:
        server = psutil.Process(self._running.pid)
        return [server, *server.children()]

    @contextlib.contextmanager
    def slow_commits(self, delay_us: int) -> Iterator[None]:
        """Every commit takes that much longer before it is flushed to disk."""
        self._set("commit_siblings", 0)
        self._set("commit_delay", delay_us)
        try:
            yield
        finally:
            self._set("commit_delay", 0)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Connections stay up and nothing answers."""
        processes = self.processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                # One that was ending when it was stopped ends now.
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()

    def kill(self) -> None:
        """At once, without a checkpoint: all connections are lost."""
        self._running.send_signal(signal.SIGQUIT)
        self._running.wait(_START_S)
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder)

    def _set(self, name: str, value: int) -> None:
        for statement in (f"ALTER SYSTEM SET {name} = {value}", "SELECT pg_reload_conf()"):
            self._run("psql", "-qAtc", statement)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("this server is not running")
        return self._process

    def _initialise(self) -> None:
        password_file = self._folder / "password"
        password_file.write_text(self._password)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        owner = ["--username", _USER, "--pwfile", str(password_file)]
        self._run("initdb", "-D", str(self._folder / "data"), *options, *owner)

    def _run(self, name: str, *args: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [self._binaries / name, *args],
            capture_output=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "LC_ALL": "C",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(self._port),
                "PGUSER": _USER,
                "PGPASSWORD": self._password,
                "PGDATABASE": "postgres",
            },
            **self._as_user(),
        )
        if check and done.returncode:
            raise RuntimeError(f"{name}: {done.stderr.decode()}")
        return done

    def _as_user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {"cwd": self._folder}
        user, group = _unprivileged()
        return {"cwd": self._folder, "user": user, "group": group, "extra_groups": []}


def _unprivileged() -> tuple[str, str]:
    return ("nobody", "nogroup")


def _die_with_parent() -> None:
    """A test run that was killed leaves no server behind."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _version(postgres: Path) -> int:
    return int(postgres.parent.parent.name)
