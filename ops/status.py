"""What `pixtral status` sees: the quick way where it answers, else Serve's own report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ops.edge import Endpoints, health
from ops.overview import Overview
from ops.progress import quiet_serve
from ops.state import Running, State
from ops.vitals import Vitals, look
from serve_app.cluster import ClusterStatus
from serve_app.config import Config

REFRESH_S = 2.0
# Asks Serve, as a driver of Ray: seconds, but it also tells why nothing answers.
SlowStatus = Callable[[Config, Path], ClusterStatus]


def overview(running: Running, state: State, slow: SlowStatus) -> Overview:
    """Raises ClusterError where Ray runs and cannot be reached."""
    seen = look(running.config, state.folder, state.api_key(running.config))
    return _told(running, state, seen, None, slow)


def overviews(running: Running, state: State, slow: SlowStatus) -> Iterator[Overview]:
    """One after the other, ``REFRESH_S`` apart, for as long as they are asked for."""
    before: Vitals | None = None
    while True:
        seen = look(running.config, state.folder, state.api_key(running.config))
        yield _told(running, state, seen, before, slow)
        before = seen
        time.sleep(REFRESH_S)


def _told(
    running: Running, state: State, seen: Vitals, before: Vitals | None, slow: SlowStatus
) -> Overview:
    if seen.cluster is None:
        with quiet_serve():
            reported = slow(running.config, state.folder)
        return Overview(running, reported, health(Endpoints.of(running.config)))
    return Overview(
        running,
        seen.cluster,
        seen.health,
        load=seen.load,
        today=seen.today,
        tokens_per_s=seen.tokens_per_s(before),
        live=before is not None,
    )
