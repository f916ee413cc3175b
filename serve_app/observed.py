"""How a tier's replica becomes visible: its log file and its traces. Called first in each."""

from __future__ import annotations

from ray import serve

from serve_app.config import Config
from serve_app.log import write_to_replica_file
from serve_app.tracing import Tracing


def observed(config: Config, tier: str) -> Tracing | None:
    """Log where the Ray dashboard looks, and trace if the config says so.

    Raises:
        ConfigError: traces are asked for and their exporter is not installed.
    """
    write_to_replica_file(tier, json=config.telemetry.log_format == "json")
    replica = serve.get_replica_context().replica_id.unique_id
    return Tracing.start(config.telemetry, tier=tier, instance=replica)
