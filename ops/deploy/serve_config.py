"""Ray Serve's own config: what ``serve deploy`` takes and a RayService holds as serveConfigV2."""

from __future__ import annotations

from typing import Any

import yaml

from ops.deploy import layout
from serve_app.cluster import APPLICATION


def serve_config() -> dict[str, Any]:
    """The one application, built on the cluster from the config file that every pod has.

    A proxy runs on every node that has a replica. KubeRay keeps the head out of the Service
    (``excludeHeadPodFromServeSvc``), and a proxy on the head only would leave nobody to answer.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": layout.REST_PORT},
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "serve_app.app:application",
                "args": {"config_file": layout.CONFIG_FILE},
            }
        ],
    }


def as_yaml() -> str:
    return yaml.safe_dump(serve_config(), sort_keys=False)
