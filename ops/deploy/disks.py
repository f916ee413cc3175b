"""Nodes whose own NVMe disks come raw: one DaemonSet a tier joins, formats and mounts them.

GKE and EKS do that when they make the node (`ephemeral_storage_local_ssd_config`, `NodeConfig` with
RAID0), AKS leaves the disks alone. Pods that want the weights' folder there wait until it exists.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ops.deploy import layout
from ops.deploy.platform import TIERS, Platform, Tier
from ops.deploy.pods import SECURE

Manifest = dict[str, Any]

NAME = f"{layout.NAME}-local-disks"
SCRIPT = Path(__file__).with_name("join_disks.sh")
# Below it whatever is mounted is seen by the node, and from there by other pods.
_MOUNTS = "/mnt"


def local_disks(platform: Platform, image: str) -> list[Manifest]:
    return [_daemon_set(platform, tier, image) for tier in _tiers(platform)]


def _tiers(platform: Platform) -> list[Tier]:
    """With nodes of their own and raw disks in them."""
    pools = {tier: platform.pools[tier] for tier in TIERS}
    return [tier for tier, pool in pools.items() if pool.raw_disks and pool.max_nodes > 0]


def _daemon_set(platform: Platform, tier: Tier, image: str) -> Manifest:
    pool = platform.pools[tier]
    # Not the label of our pods: the fences let those speak to each other, and this one to nobody.
    labels = {"app.kubernetes.io/name": NAME, "pixtral.ai/disks-of": tier}
    folder = pool.local_ssd_path
    spec = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "priorityClassName": "system-node-critical",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": dict(pool.selector),
        "tolerations": [each.model_dump(exclude_none=True) for each in pool.tolerations],
        "initContainers": [
            {
                "name": "join",
                "image": image,
                "command": ["bash", "-c", SCRIPT.read_text(), "join-disks"],
                "args": [folder, str(layout.USER)],
                "resources": _resources("200m", "256Mi"),
                # Disks and mounts are the node's: nothing less will do.
                "securityContext": {"privileged": True, "runAsUser": 0, "runAsNonRoot": False},
                "volumeMounts": [
                    {"name": "devices", "mountPath": "/dev"},
                    {
                        "name": "mounts",
                        "mountPath": _MOUNTS,
                        "mountPropagation": "Bidirectional",
                    },
                ],
            }
        ],
        # A DaemonSet has to have something that stays.
        "containers": [
            {
                "name": "joined",
                "image": image,
                "command": ["sleep", "infinity"],
                "resources": _resources("10m", "16Mi"),
                "securityContext": SECURE | {"runAsNonRoot": True, "runAsUser": layout.USER},
            }
        ],
        "volumes": [
            {"name": "devices", "hostPath": {"path": "/dev", "type": "Directory"}},
            {"name": "mounts", "hostPath": {"path": _MOUNTS, "type": "Directory"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": f"{NAME}-{tier}",
            "namespace": platform.namespace,
            "labels": dict(layout.LABELS),
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _resources(cpu: str, memory: str) -> Manifest:
    amounts = {"cpu": cpu, "memory": memory}
    return {"requests": dict(amounts), "limits": dict(amounts)}
