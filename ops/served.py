"""The system that commands speak to: its launcher, its models, and one started for a while."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ops import question
from ops.edge import get_json
from ops.launch import Launcher
from ops.problem import Problem
from ops.progress import Progress
from ops.settings import Options
from ops.state import State
from serve_app import cluster


def launcher() -> Launcher:
    return Launcher(cluster, State.open(), Progress(), bundled)


def bundled(folder: Path) -> Path:
    """The bundled model, written to ``folder`` if it is not there."""
    from ops import nano

    model: Path = nano.ensure(folder)
    return model


@contextmanager
def started(model: Path | None) -> Iterator[None]:
    """The system with ``model`` until the block ends; the one that runs where ``model`` is None.

    One that already runs with that model is used, and left running.

    Raises:
        Problem, ConfigError, ClusterError: it could not be started, or another runs.
    """
    if model is None:
        yield
        return
    starter = launcher()
    up = starter.up(Options(model=model))
    try:
        yield
    finally:
        if not up.already:
            starter.down()


def first_model(base_url: str, api_key: str) -> str:
    """The name that is served first.

    Raises:
        Problem: nobody answers, or not with a list of models.
    """
    code, body = get_json(f"{base_url}/models", timeout_s=10, key=api_key)
    if code == 0:
        raise Problem(f"nobody answers at {base_url}; start the system with `pixtral up`")
    if code != 200:
        raise Problem(question.refusal(code, json.dumps(body)))
    return question.names(body)[0]
