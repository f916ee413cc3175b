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
    pairs = [*_scratch(size), _config(config), *_weights(platform, tier)]
    if tier == "decoder":
        pairs.append(_journal())
    if tier == "gateway":
        pairs.append(_secrets())
    if tier == "head" and platform.redis.ca is not None:
        pairs.append(_redis_authority())
    return Mounts(
        [{"name": name, **source} for name, source, _ in pairs],
        [{"name": name, **mount} for name, _, mount in pairs],
    )


def fetches_weights(platform: Platform, tier: Tier) -> bool:
    return tier in ("vision", "decoder") and not _local(platform)


def writable_node_folders(platform: Platform, tier: Tier) -> list[str]:
    """Folders of the node that the pod writes to. Kubernetes makes them as root's."""
    folders = [layout.JOURNAL_FOLDER] if tier == "decoder" else []
    return [*folders, layout.WEIGHTS_FOLDER] if fetches_weights(platform, tier) else folders


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


def _weights(platform: Platform, tier: Tier) -> list[Pair]:
    """The other tiers, and Serve, which builds the application on any node, read the model's
    description and tokenizer only. These are in the image, at the same path, so that what faces
    callers needs no access to the bucket."""
    if _local(platform):
        folder = platform.weights_uri.removeprefix("file://")
        source: Manifest = {"hostPath": {"path": folder, "type": "Directory"}}
        mount: Manifest = {"mountPath": layout.WEIGHTS_FOLDER, "readOnly": True}
    elif fetches_weights(platform, tier):
        home = platform.home(tier)
        disk = home.local_ssd_path or layout.NODE_FOLDER
        # Until raw disks are mounted there (disks.py) the folder would be on the system disk.
        kind = "Directory" if home.raw_disks else "DirectoryOrCreate"
        source = {"hostPath": {"path": f"{disk}/weights", "type": kind}}
        mount = {"mountPath": layout.WEIGHTS_FOLDER}
    else:
        return []
    return [("weights", source, mount)]


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


def _redis_authority() -> Pair:
    return (
        "redis-authority",
        {"configMap": {"name": layout.REDIS_AUTHORITY}},
        {"mountPath": layout.REDIS_AUTHORITY_FOLDER, "readOnly": True},
    )


def _local(platform: Platform) -> bool:
    """Whether every node has the weights already, in a folder."""
    return platform.weights_uri.startswith("file://")
