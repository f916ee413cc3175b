"""One tier's pod: its container, what runs before it, its probes and its limits.

Non-root, without capabilities, on a read-only root. The one exception is the init container that
gives folders of the node, which Kubernetes makes as root's, to our user.
"""

from __future__ import annotations

import json
from typing import Any

from ops.deploy import layout
from ops.deploy.platform import Platform, Tier
from ops.deploy.sizing import Size
from ops.deploy.volumes import fetches_weights, mounts, writable_node_folders
from serve_app.cluster import EVERYWHERE
from serve_app.config import Config

Manifest = dict[str, Any]

SECURE = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": layout.USER,
    "runAsGroup": layout.USER,
    # Secrets and scratch volumes are readable by this group.
    "fsGroup": layout.USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Answers are ended and what was computed is settled: GATEWAY_SHUTDOWN_S and a margin.
_GRACE_S = {"gateway": 60}
_DEFAULT_GRACE_S = 30


def pod_template(
    config: Config, platform: Platform, tier: Tier, size: Size, image: str
) -> Manifest:
    """``config`` is the deployed one."""
    mounted = mounts(config, platform, tier, size)
    pool = platform.pools[tier]
    spec: Manifest = {
        "serviceAccountName": platform.service_accounts[tier].name,
        # The head's autoscaler speaks to Kubernetes; clouds mount tokens of their own elsewhere.
        "automountServiceAccountToken": tier == "head",
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S.get(tier, _DEFAULT_GRACE_S),
        "securityContext": _POD_SECURITY,
        "initContainers": _before(config, platform, tier, size, image, mounted.mounts),
        "containers": [_ray(platform, tier, size, image, mounted.mounts)],
        "volumes": mounted.volumes,
    }
    if pool.selector:
        spec["nodeSelector"] = dict(pool.selector)
    if pool.tolerations:
        spec["tolerations"] = [
            toleration.model_dump(exclude_none=True) for toleration in pool.tolerations
        ]
    if tier == "gateway":
        spec["topologySpreadConstraints"] = [_spread(tier)]
    # Azure looks for its mark on pods, not on their account.
    labels = layout.POD_LABELS | platform.service_accounts[tier].labels
    return {"metadata": {"labels": labels}, "spec": spec}


def ray_start_params(platform: Platform, tier: Tier, size: Size) -> dict[str, str]:
    """Flags of ``ray start``; KubeRay adds address and metrics port."""
    params = {
        "object-store-memory": str(size.object_store),
        "disable-usage-stats": "true",
    }
    if tier == "head":
        # No replica on the head; the operator asks it how the application is, hence its address.
        return params | {"num-cpus": "0", "num-gpus": "0", "dashboard-host": "0.0.0.0"}
    offered = {f"pixtral_{tier}": 1}
    if tier == "decoder" and platform.vision_shares:
        offered["pixtral_vision"] = 1
    return params | {
        "num-cpus": str(size.ray_cpus),
        "num-gpus": str(size.gpus),
        # KubeRay pastes it into a shell command.
        "resources": json.dumps(json.dumps(offered)),
    }


def _ray(
    platform: Platform, tier: Tier, size: Size, image: str, mounted: list[Manifest]
) -> Manifest:
    environment = EVERYWHERE | {"HOME": "/tmp"}
    # `authOptions` sets it with the token.
    del environment["RAY_AUTH_MODE"]
    if tier == "decoder":
        environment |= platform.nccl_env
    if tier == "head" and platform.redis.tls:
        environment["RAY_REDIS_CA_CERT"] = _redis_authority(platform)
    return {
        "name": "ray-head" if tier == "head" else "ray-worker",
        "image": image,
        "env": _env(environment),
        "ports": _ports(tier),
        "resources": _resources(size, gpus=size.gpus),
        "securityContext": SECURE,
        "volumeMounts": mounted,
        **_probes(tier),
    }


def _redis_authority(platform: Platform) -> str:
    """Said also where it is the system's: Ray is linked against a TLS library of its own, which
    looks for authorities where that was built (src/ray/gcs/store_client/redis_context.cc)."""
    if platform.redis.ca is None:
        return layout.SYSTEM_AUTHORITIES
    return f"{layout.REDIS_AUTHORITY_FOLDER}/{layout.REDIS_AUTHORITY_FILE}"


def _ports(tier: Tier) -> list[Manifest]:
    ports = {"metrics": layout.METRICS_PORT}
    if tier == "head":
        # KubeRay makes Services of these names; without `serve` it refuses a RayService.
        ports |= {"gcs-server": layout.GCS_PORT, "dashboard": layout.DASHBOARD_PORT}
    if tier in ("head", "gateway"):
        ports["serve"] = layout.REST_PORT
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _before(
    config: Config,
    platform: Platform,
    tier: Tier,
    size: Size,
    image: str,
    mounted: list[Manifest],
) -> list[Manifest]:
    """In order: own the node's folders, fetch the weights, bring the accounts up to date."""
    steps: list[tuple[str, list[str], Manifest]] = []
    if folders := writable_node_folders(platform, tier):
        owner = f"{layout.USER}:{layout.USER}"
        root = {
            **SECURE,
            "runAsUser": 0,
            "runAsNonRoot": False,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        }
        steps.append(("own-node-folders", ["chown", owner, *folders], root))
    if fetches_weights(platform, tier):
        steps.append(("fetch", _fetch(config, platform, tier), SECURE))
    if tier == "gateway":
        accounts = ["python", "-m", "ops.deploy.accounts", layout.CONFIG_FILE]
        steps.append(("accounts", accounts, SECURE))
    return [
        {
            "name": name,
            "image": image,
            "command": command,
            "env": _env({"HOME": "/tmp"}),
            # Not more than the pod has anyway, so it needs no larger node.
            "resources": _resources(size, gpus=0),
            "securityContext": security,
            "volumeMounts": [mount for mount in mounted if mount["name"] != "shared-mem"],
        }
        for name, command, security in steps
    ]


def _fetch(config: Config, platform: Platform, tier: Tier) -> list[str]:
    """Locked, and checksummed as it comes; a node whose disk has it already is done at once."""
    return [
        *("pixtral", "weights", "fetch", platform.weights_uri, str(config.model.path)),
        *("--part", _part(platform, tier), "--quick"),
    ]


def _part(platform: Platform, tier: Tier) -> str:
    if tier == "vision":
        return "vision"
    return "all" if platform.vision_shares else "text"


def _env(values: dict[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _resources(size: Size, gpus: int) -> Manifest:
    """Requested is what is allowed: a pod that is promised its memory is not evicted for it."""
    amounts = {"cpu": f"{round(size.cpu * 1000)}m", "memory": f"{size.memory // 2**20}Mi"}
    if gpus:
        amounts["nvidia.com/gpu"] = str(gpus)
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _probes(tier: Tier) -> Manifest:
    """Of Ray and, on gateways, Serve's proxy; none looks at the model (see timings.py).

    In a shell because Ray's agent answers on loopback. A worker that has not come up in ten
    minutes, or is silent for as long, is replaced; KubeRay's own default is the same.
    """
    agent = f"http://localhost:{layout.AGENT_PORT}/api/local_raylet_healthz"
    checks = [agent]
    if tier == "head":
        checks.append(f"http://localhost:{layout.DASHBOARD_PORT}/api/gcs_healthz")
    # Only gateways' pods are behind a Service. Others may have no replica, thus no proxy, and
    # would never be ready by KubeRay's own probe.
    ready = [*checks, f"http://localhost:{layout.REST_PORT}/-/healthz"]
    return {
        "livenessProbe": _probe(checks, period_s=10, failures=60),
        "readinessProbe": _probe(ready if tier == "gateway" else checks, period_s=5, failures=2),
    }


def _probe(urls: list[str], period_s: int, failures: int) -> Manifest:
    command = " && ".join(f"wget --tries 1 -T 4 -q -O- {url} | grep -q success" for url in urls)
    return {
        "exec": {"command": ["bash", "-c", command]},
        "initialDelaySeconds": 10,
        "timeoutSeconds": 10,
        "periodSeconds": period_s,
        "failureThreshold": failures,
    }


def _spread(tier: Tier) -> Manifest:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {layout.GROUP_LABEL: layout.ray_group(tier)}},
    }
