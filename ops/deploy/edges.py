"""What stands around the RayService: accounts, the way in, disruption budgets, what is scraped."""

from __future__ import annotations

from typing import Any

from ops.deploy import layout
from ops.deploy.platform import TIERS, Platform, Tier
from serve_app.config import Config

Manifest = dict[str, Any]

_CORE, _POLICY = "v1", "policy/v1"
# An answer may take minutes, and its stream may be silent while it waits its turn.
STREAM_S = 3600


def service_accounts(platform: Platform) -> list[Manifest]:
    """KubeRay binds the head's account to what the autoscaler needs; the others may do nothing."""
    made = []
    for tier in TIERS:
        account = platform.service_accounts[tier]
        manifest = _named(_CORE, "ServiceAccount", account.name, platform)
        manifest["metadata"]["labels"] |= account.labels
        if account.annotations:
            manifest["metadata"]["annotations"] = dict(account.annotations)
        made.append(manifest | {"automountServiceAccountToken": tier == "head"})
    return made


def gateway_service(platform: Platform) -> Manifest:
    """KubeRay's own Service takes in every pod that has a proxy, so that a stream could hang on a
    decoder's pod; this one has the gateways' only."""
    manifest = _named(_CORE, "Service", f"{layout.NAME}-gateway", platform)
    if platform.cloud == "gcp":
        manifest["metadata"]["annotations"] = {
            "cloud.google.com/neg": '{"ingress": true}',
            "cloud.google.com/backend-config": f'{{"default": "{layout.NAME}-gateway"}}',
        }
    return manifest | {
        "spec": {
            "type": "ClusterIP",
            "selector": layout.POD_LABELS | {layout.GROUP_LABEL: layout.ray_group("gateway")},
            "ports": [{"name": "http", "port": layout.REST_PORT, "targetPort": "serve"}],
        }
    }


def ingress(platform: Platform, host: str) -> list[Manifest]:
    """The internal load balancer, with TLS; the certificate is a Secret's or the cloud's own."""
    manifest = _named("networking.k8s.io/v1", "Ingress", layout.NAME, platform)
    if platform.ingress.annotations:
        manifest["metadata"]["annotations"] = dict(platform.ingress.annotations)
    backend = {"service": {"name": f"{layout.NAME}-gateway", "port": {"name": "http"}}}
    path = {"path": "/", "pathType": "Prefix", "backend": backend}
    manifest["spec"] = {
        "ingressClassName": platform.ingress.class_,
        "tls": [{"hosts": [host], "secretName": layout.TLS_SECRET}],
        "rules": [{"host": host, "http": {"paths": [path]}}],
    }
    if platform.cloud != "gcp":
        return [manifest]
    # Google's load balancer would cut every answer after half a minute.
    backend_config = _named(
        "cloud.google.com/v1", "BackendConfig", f"{layout.NAME}-gateway", platform
    )
    backend_config["spec"] = {
        "timeoutSec": STREAM_S,
        "connectionDraining": {"drainingTimeoutSec": 60},
        "healthCheck": {
            "type": "HTTP",
            "requestPath": "/healthz",
            "port": layout.REST_PORT,
            "checkIntervalSec": 10,
        },
    }
    # The class is an annotation here: Google's controllers know no IngressClass of theirs.
    del manifest["spec"]["ingressClassName"]
    annotations = {"kubernetes.io/ingress.class": platform.ingress.class_}
    manifest["metadata"]["annotations"] = annotations | dict(platform.ingress.annotations)
    return [manifest, backend_config]


def disruption_budgets(config: Config, platform: Platform) -> list[Manifest]:
    """A node may be drained of one pod of a tier at a time, but not of the head and, on GPUs, of
    decoders: only a person decides that a group ends, as its place stays empty for a while."""
    held: set[Tier] = {"head"}
    if config.decoder.device == "cuda":
        held.add("decoder")
    tiers = [tier for tier in TIERS if not (tier == "vision" and platform.vision_shares)]
    budgets = []
    for tier in tiers:
        manifest = _named(_POLICY, "PodDisruptionBudget", f"{layout.NAME}-{tier}", platform)
        labels = layout.POD_LABELS | {layout.GROUP_LABEL: layout.ray_group(tier)}
        budgets.append(
            manifest
            | {
                "spec": {
                    "maxUnavailable": 0 if tier in held else 1,
                    "selector": {"matchLabels": labels},
                }
            }
        )
    return budgets


def pod_monitors(platform: Platform) -> list[Manifest]:
    """For Prometheus' operator: Ray's endpoint of every pod, and the money of the gateways', which
    the ledger adds up, so that any one of them tells it all."""
    cluster = {"sourceLabels": ["__meta_kubernetes_pod_label_ray_io_cluster"]}
    relabelled = [cluster | {"targetLabel": "ray_io_cluster"}]
    ray = _named("monitoring.coreos.com/v1", "PodMonitor", f"{layout.NAME}-ray", platform)
    ray["spec"] = {
        "selector": {"matchLabels": dict(layout.POD_LABELS)},
        "podMetricsEndpoints": [{"port": "metrics", "interval": "15s", "relabelings": relabelled}],
    }
    money = _named("monitoring.coreos.com/v1", "PodMonitor", f"{layout.NAME}-money", platform)
    gateways = layout.POD_LABELS | {layout.GROUP_LABEL: layout.ray_group("gateway")}
    token = {"name": "pixtral-metrics", "key": layout.SECRETS["pixtral-metrics"]}
    money["spec"] = {
        "selector": {"matchLabels": gateways},
        "podMetricsEndpoints": [
            {
                "port": "serve",
                "path": "/metrics",
                "interval": "30s",
                "authorization": {"type": "Bearer", "credentials": token},
                "relabelings": relabelled,
            }
        ],
    }
    return [ray, money]


def _named(version: str, kind: str, name: str, platform: Platform) -> Manifest:
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": platform.namespace,
            "labels": dict(layout.LABELS),
        },
    }
