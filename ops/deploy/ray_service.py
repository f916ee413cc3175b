"""The RayService for KubeRay: a head without replicas and a worker group for each tier."""

from __future__ import annotations

from typing import Any

from ops.deploy import layout, serve_config
from ops.deploy.platform import TIERS, Platform, Tier
from ops.deploy.pods import SECURE, pod_template, ray_start_params
from ops.deploy.sizing import pod_size
from ops.deploy.timings import timings
from serve_app.config import Config

Manifest = dict[str, Any]

# A decoder's node costs the most, and filling it again the longest: it is kept for a while. The
# decoder's minimum is kept for ever.
_IDLE_S: dict[Tier, int] = {"gateway": 600, "preprocess": 300, "vision": 600, "decoder": 1800}


def ray_service(config: Config, platform: Platform, image: str) -> Manifest:
    """``config`` is the deployed one.

    Raises:
        Problem: the nodes are too small.
    """
    groups: list[Tier] = [tier for tier in TIERS if tier != "head"]
    if platform.vision_shares:
        groups.remove("vision")
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {
            "name": layout.NAME,
            "namespace": platform.namespace,
            "labels": dict(layout.LABELS),
        },
        "spec": {
            "serveConfigV2": serve_config.as_yaml(),
            "upgradeStrategy": {"type": upgrade_strategy(config)},
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": layout.RAY_VERSION,
                "enableInTreeAutoscaling": True,
                "autoscalerOptions": _autoscaler(),
                "authOptions": {"mode": "token", "secretName": layout.RAY_TOKEN_SECRET},
                **_head_recovery(config, platform),
                "headGroupSpec": _head(config, platform, image),
                "workerGroupSpecs": [_group(config, platform, tier, image) for tier in groups],
            },
        },
    }


def upgrade_strategy(config: Config) -> str:
    """``None`` on GPUs: a new cluster beside the old one would need every group's GPUs twice, and
    wait for them for ever. A change is then made in a maintenance window (ops/deploy/README.md).
    ``NewCluster`` where CPUs are all it takes."""
    return "None" if config.decoder.device == "cuda" else "NewCluster"


def _autoscaler() -> Manifest:
    amounts = {"cpu": "500m", "memory": "1Gi"}
    return {
        "version": "v2",
        "upscalingMode": "Default",
        "idleTimeoutSeconds": 600,
        "env": [
            # A pod that still copies weights is not stuck.
            {
                "name": "RAY_AUTOSCALER_RECONCILE_ALLOCATE_STATUS_TIMEOUT_S",
                "value": str(timings().allocate_s),
            },
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
            {"name": "HOME", "value": "/tmp"},
        ],
        "resources": {"requests": dict(amounts), "limits": dict(amounts)},
        "securityContext": SECURE,
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _head_recovery(config: Config, platform: Platform) -> Manifest:
    """The head's state is in Redis, so that workers and the model stay when the head is replaced.

    Two clusters must never share a namespace there. KubeRay's default, the RayCluster's own id, is
    unique, and is what an upgrade by a second cluster needs. Where there is only ever one it has a
    name, by which an operator finds it.
    """
    redis = platform.redis
    name, key = layout.REDIS_SECRET
    options: Manifest = {
        "backend": "redis",
        "redisAddress": f"{'rediss' if redis.tls else 'redis'}://{redis.host}:{redis.port}",
        "redisPassword": {"valueFrom": {"secretKeyRef": {"name": name, "key": key}}},
    }
    if upgrade_strategy(config) == "None":
        options["externalStorageNamespace"] = "-".join(
            (platform.cloud, platform.location, platform.cluster, platform.namespace)
        )
    return {"gcsFaultToleranceOptions": options}


def _head(config: Config, platform: Platform, image: str) -> Manifest:
    size = pod_size(config, platform, "head")
    return {
        "serviceType": "ClusterIP",
        "rayStartParams": ray_start_params(platform, "head", size),
        "template": pod_template(config, platform, "head", size, image),
    }


def _group(config: Config, platform: Platform, tier: Tier, image: str) -> Manifest:
    size = pod_size(config, platform, tier)
    least, most = size.pods
    return {
        "groupName": layout.ray_group(tier),
        "replicas": least,
        "minReplicas": least,
        "maxReplicas": most,
        "numOfHosts": 1,
        "idleTimeoutSeconds": _IDLE_S[tier],
        "rayStartParams": ray_start_params(platform, tier, size),
        "template": pod_template(config, platform, tier, size, image),
    }
