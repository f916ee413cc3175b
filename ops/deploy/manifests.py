"""All that is applied to the cluster, in the order in which it should exist."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ops.deploy import edges, layout
from ops.deploy.deployed_config import as_yaml, config_map_name, deployed_config
from ops.deploy.disks import local_disks
from ops.deploy.fences import network_policies
from ops.deploy.platform import Platform
from ops.deploy.ray_service import ray_service
from ops.deploy.sizing import check_fit
from serve_app.config import Config

Manifest = dict[str, Any]


def manifests(config: Config, platform: Platform, image: str, host: str) -> list[Manifest]:
    """Every document of ``pixtral deploy render --format kubernetes``.

    Raises:
        Problem: the config asks for what the platform has not.
        ConfigError: it makes no sense there.
    """
    deployed = deployed_config(config, platform)
    check_fit(deployed, platform)
    return [
        *edges.service_accounts(platform),
        *network_policies(deployed, platform),
        _config_map(deployed, platform),
        *_redis_authority(platform),
        *local_disks(platform, image),
        ray_service(deployed, platform, image),
        edges.gateway_service(platform),
        *edges.ingress(platform, host),
        *edges.disruption_budgets(deployed, platform),
        *edges.pod_monitors(platform),
    ]


def documents(values: Sequence[Manifest]) -> str:
    """As YAML documents."""
    return yaml.dump_all(values, Dumper=_Plain, sort_keys=False, explicit_start=True)


def _config_map(config: Config, platform: Platform) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": config_map_name(config),
            "namespace": platform.namespace,
            "labels": dict(layout.LABELS),
        },
        "immutable": True,
        "data": {"config.yaml": as_yaml(config)},
    }


def _redis_authority(platform: Platform) -> list[Manifest]:
    """Certificates, nothing secret."""
    if platform.redis.ca is None:
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": layout.REDIS_AUTHORITY,
                "namespace": platform.namespace,
                "labels": dict(layout.LABELS),
            },
            "data": {layout.REDIS_AUTHORITY_FILE: platform.redis.ca},
        }
    ]


class _Plain(yaml.SafeDumper):
    """Without anchors, and with text of many lines as such."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Plain.add_representer(str, _text)
