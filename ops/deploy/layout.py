"""Names, ports and paths that the manifests, the deployed config and the tests share."""

from __future__ import annotations

NAME = "pixtral"
KUBERAY_VERSION = "1.7.0"
RAY_VERSION = "2.60.0"  # KubeRay wants the image's version; a test compares it with constraints.txt

CONFIG_FOLDER = "/etc/pixtral"
CONFIG_FILE = f"{CONFIG_FOLDER}/config.yaml"
WEIGHTS_FOLDER = "/weights"
JOURNAL_FOLDER = "/journal"
SECRETS_FOLDER = "/secrets"
# Journals are kept on the node's boot disk, which a reboot leaves alone; local SSDs may not be.
NODE_FOLDER = "/var/lib/pixtral"

# Made by an operator or an external-secrets controller, never here: Secret -> its one key.
SECRETS = {
    "pixtral-database": "password",
    "pixtral-pepper": "pepper",
    "pixtral-bootstrap-key": "api_key",
    "pixtral-metrics": "token",
}
REDIS_SECRET = ("pixtral-redis", "password")
REDIS_AUTHORITY = f"{NAME}-redis-authority"
REDIS_AUTHORITY_FOLDER = "/etc/pixtral-redis"
REDIS_AUTHORITY_FILE = "ca.pem"
# Of the distribution that the images are made from.
SYSTEM_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
RAY_TOKEN_SECRET = "pixtral-ray-token"  # KubeRay reads its key auth_token
TLS_SECRET = "pixtral-tls"

REST_PORT = 8000
GCS_PORT = 6379
DASHBOARD_PORT = 8265
METRICS_PORT = 8080
AGENT_PORT = 52365

USER = 1000  # of the image (ops/images/Dockerfile)

MONITORING_NAMESPACE = "monitoring"
OPERATOR_NAMESPACE = "kuberay-system"

LABELS = {"app.kubernetes.io/part-of": NAME, "app.kubernetes.io/managed-by": "pixtral-deploy"}
POD_LABELS = {"app.kubernetes.io/part-of": NAME}
# KubeRay sets it on every pod and lets nobody override it.
GROUP_LABEL = "ray.io/group"
HEAD_GROUP = "headgroup"


def ray_group(tier: str) -> str:
    """The value of ``GROUP_LABEL`` on a tier's pods."""
    return HEAD_GROUP if tier == "head" else tier
