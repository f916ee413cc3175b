"""Every series that a panel or a rule reads, by the name under which Prometheus knows it.

Ours are read off ``serve_app/telemetry.py``: there is no second place where a name is written, so a
metric renamed there is renamed here, and one that is gone is an error. Ray's own names are Ray's to
change; ``tests/e2e/test_panels.py`` finds out on a running system.
"""

from __future__ import annotations

from typing import Any

from serve_app import telemetry

RAY_PREFIX = "ray_"
# Any label set does: only the names are read.
_ANY = "any"


class Exported:
    """The names of one tier's metrics, by attribute: ``GATEWAY.failures``."""

    def __init__(self, metrics: object) -> None:
        self._names = {key: RAY_PREFIX + _name(metric) for key, metric in vars(metrics).items()}

    def __getattr__(self, attribute: str) -> str:
        try:
            return self._names[attribute]
        except KeyError:
            raise AttributeError(f"serve_app/telemetry.py has no metric {attribute!r}") from None

    def all(self) -> frozenset[str]:
        return frozenset(self._names.values())


def _name(metric: Any) -> str:
    # What serve_app/instruments.py wraps, or Ray's metric itself.
    told = metric if hasattr(metric, "info") else metric._metric
    name: str = told.info["name"]
    return name


GATEWAY = Exported(telemetry.GatewayMetrics(_ANY))
ACCOUNTS = Exported(telemetry.AccountsMetrics())
PREPROCESS = Exported(telemetry.PreprocessMetrics())
FETCH = Exported(telemetry.FetchMetrics())
VISION = Exported(telemetry.VisionMetrics())
DECODER = Exported(telemetry.DecoderMetrics(_ANY))

# Read by the gateway's /metrics from the ledger itself; Ray does not see these.
LEDGER_TOKENS = telemetry.LEDGER_TOKENS.name
LEDGER_NANO_USD = telemetry.LEDGER_NANO_USD.name
LEDGER_REQUESTS = telemetry.LEDGER_REQUESTS.name
LEDGER_POSTED = telemetry.LEDGER_POSTED.name
LEDGER_HELD = telemetry.LEDGER_HELD.name
LEDGER_BUDGET = telemetry.LEDGER_BUDGET.name
LEDGER_OPEN = telemetry.LEDGER_OPEN.name
LEDGER_UNAUDITED = telemetry.LEDGER_UNAUDITED.name
LEDGER_ALERTS = telemetry.LEDGER_ALERTS.name
LEDGER_ALERTS_DUE = telemetry.LEDGER_ALERTS_DUE.name
LEDGER_EXPIRED = telemetry.LEDGER_EXPIRED.name
LEDGER_OLDEST_OPEN = telemetry.LEDGER_OLDEST_OPEN.name
LEDGER_OLDEST_UNAUDITED = telemetry.LEDGER_OLDEST_UNAUDITED.name

# Ray Serve's, with labels application and deployment. Gauges that nobody renews for two of Ray's
# report intervals (20 s) are gone from its endpoint.
SERVE_HEALTHY = "ray_serve_deployment_replica_healthy"
SERVE_STARTS = "ray_serve_deployment_replica_starts_total"
SERVE_TARGET = "ray_serve_autoscaling_target_replicas"
SERVE_DESIRED = "ray_serve_autoscaling_desired_replicas"
SERVE_QUEUED = "ray_serve_deployment_queued_queries"
SERVE_ONGOING = "ray_serve_replica_processing_queries"
SERVE_UTILISATION = "ray_serve_replica_utilization_percent"
SERVE_REQUESTS = "ray_serve_deployment_request_counter_total"
SERVE_ERRORS = "ray_serve_deployment_error_counter_total"
SERVE_LATENCY_MS = "ray_serve_deployment_processing_latency_ms"
SERVE_STATUS = "ray_serve_deployment_status"
SERVE_HTTP = "ray_serve_num_http_requests_total"

# Ray's, one set for each machine.
STORE_USED = "ray_object_store_used_memory"
STORE_FREE = "ray_object_store_available_memory"
STORE_SPILLED = "ray_spill_manager_objects_bytes"
NODE_CPU = "ray_node_cpu_utilization"
NODE_MEMORY_USED = "ray_node_mem_used"
NODE_MEMORY = "ray_node_mem_total"
NODE_DISK_FREE = "ray_node_disk_free"
NODE_NETWORK_IN = "ray_node_network_receive_speed"
NODE_NETWORK_OUT = "ray_node_network_send_speed"
NODES = "ray_cluster_active_nodes"
GPU_UTILISATION = "ray_node_gpus_utilization"
GPU_MEMORY_USED = "ray_node_gram_used"
GPU_MEMORY_FREE = "ray_node_gram_available"
