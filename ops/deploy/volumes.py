"""What a tier's pods mount: the config, scratch space, weights, journals, and for gateways secrets.

Weights and journals belong to the node, not to the pod: a pod that is replaced finds the weights
where the last one put them, and the journal of the group that died is still there to be read into
the ledger. An emptyDir would be deleted with its pod, and with it the only count of tokens that
were computed and not yet booked. A node that is lost takes its journals along; what they would
have shown is then audited as unproven (``accounting.audit_patience_s``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ops.deploy import layout
from ops.deploy.deployed_config import config_map_name
from ops.deploy.platform import Platform, Tier
from ops.deploy.sizing import Size
from serve_app.config import Config

Manifest = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Mounts:
    """Volumes of a pod, and where its containers see them."""

    volumes: list[Manifest]
    mounts: list[Manifest]


def mounts(config: Config, platform: Platform, tier: Tier, size: Size) -> Mounts:
    """``config`` is the deployed one."""
    pairs = [*_scratch(size), _config(config), _weights(platform, tier)]
    if tier == "decoder":
        pairs.append(_journal())
    if tier == "gateway":
        pairs.append(_secrets())
    return Mounts(
        [{"name": name, **source} for name, source, _ in pairs],
        [{"name": name, **mount} for name, _, mount in pairs],
    )


def owns_node_folders(platform: Platform, tier: Tier) -> bool:
    """Whether the pod writes to folders of its node, which Kubernetes makes as root's."""
    return tier == "decoder" or (_on_node(tier) and not platform.weights_uri.startswith("file://"))


def writable_node_folders(platform: Platform, tier: Tier) -> list[str]:
    folders = [layout.JOURNAL_FOLDER] if tier == "decoder" else []
    if not platform.weights_uri.startswith("file://"):
        folders.append(layout.WEIGHTS_FOLDER)
    return folders


Pair = tuple[str, Manifest, Manifest]


def _scratch(size: Size) -> list[Pair]:
    """The root file system is read-only. ``ray-logs`` is the name under which KubeRay would add
    a volume of its own at this path, and shares it with the autoscaler."""
    shm = {"medium": "Memory", "sizeLimit": f"{size.shm // 2**20}Mi"}
    return [
        ("shared-mem", {"emptyDir": shm}, {"mountPath": "/dev/shm"}),
        ("tmp", {"emptyDir": {}}, {"mountPath": "/tmp"}),
        ("ray-logs", {"emptyDir": {}}, {"mountPath": "/tmp/ray"}),
    ]


def _config(config: Config) -> Pair:
    return (
        "config",
        {"configMap": {"name": config_map_name(config)}},
        {"mountPath": layout.CONFIG_FOLDER, "readOnly": True},
    )


def _weights(platform: Platform, tier: Tier) -> Pair:
    if platform.weights_uri.startswith("file://"):
        folder = platform.weights_uri.removeprefix("file://")
        source: Manifest = {"hostPath": {"path": folder, "type": "Directory"}}
        return "weights", source, {"mountPath": layout.WEIGHTS_FOLDER, "readOnly": True}
    if _on_node(tier):
        disk = platform.home(tier).local_ssd_path or layout.NODE_FOLDER
        source = {"hostPath": {"path": f"{disk}/weights", "type": "DirectoryOrCreate"}}
    else:
        # A tokenizer and a description: a few megabytes, fetched again with each pod.
        source = {"emptyDir": {"sizeLimit": "256Mi"}}
    return "weights", source, {"mountPath": layout.WEIGHTS_FOLDER}


def _journal() -> Pair:
    source = {"path": f"{layout.NODE_FOLDER}/journal", "type": "DirectoryOrCreate"}
    return "journal", {"hostPath": source}, {"mountPath": layout.JOURNAL_FOLDER}


def _secrets() -> Pair:
    sources = [
        {"secret": {"name": name, "items": [{"key": key, "path": key}]}}
        for name, key in layout.SECRETS.items()
    ]
    return (
        "accounts",
        {"projected": {"defaultMode": 0o440, "sources": sources}},
        {"mountPath": layout.SECRETS_FOLDER, "readOnly": True},
    )


def _on_node(tier: Tier) -> bool:
    return tier in ("vision", "decoder")
