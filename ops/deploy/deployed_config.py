"""The config as the pods read it: the operator's own, with places and names of the cluster in it.

It holds no secret. A password, the pepper and keys are files that only gateways have.
"""

from __future__ import annotations

import hashlib
from urllib.parse import quote

import yaml

from ops.deploy import layout
from ops.deploy.platform import Database, Platform
from serve_app.config import Config, parse_config


def deployed_config(config: Config, platform: Platform) -> Config:
    """What every tier of ``config`` is built from on ``platform``.

    Raises:
        ConfigError: the two do not go together.
    """
    values = config.model_dump(mode="json", exclude_unset=True)
    model = values.setdefault("model", {})
    # Two models on one node do not overwrite each other.
    model["path"] = f"{layout.WEIGHTS_FOLDER}/{config.model.name}"
    model["name"] = config.model.name
    values["gateway"] = values.get("gateway", {}) | {
        "host": "0.0.0.0",
        "port": layout.REST_PORT,
        "auth": True,
        "api_key_file": f"{layout.SECRETS_FOLDER}/api_key",
    }
    values["decoder"] = values.get("decoder", {}) | {"journal_folder": layout.JOURNAL_FOLDER}
    values["accounting"] = values.get("accounting", {}) | {
        "database_url": database_url(platform.database),
        "database_password_file": f"{layout.SECRETS_FOLDER}/password",
        "pepper_file": f"{layout.SECRETS_FOLDER}/pepper",
        "metrics_token_file": f"{layout.SECRETS_FOLDER}/token",
    }
    values["ray"] = values.get("ray", {}) | {"tier_resources": True}
    return parse_config(values, source="the deployed config")


def database_url(database: Database) -> str:
    """Without the password, which is a file of the gateways'."""
    user = quote(database.user, safe="")
    tls = "?ssl=require" if database.tls == "require" else ""
    return f"postgresql://{user}@{database.host}:{database.port}/{database.name}{tls}"


def as_yaml(config: Config) -> str:
    return yaml.safe_dump(config.model_dump(mode="json", exclude_unset=True), sort_keys=True)


def config_map_name(config: Config) -> str:
    """A changed config is another ConfigMap: pods never see one change under them."""
    return f"{layout.NAME}-config-{hashlib.sha256(as_yaml(config).encode()).hexdigest()[:10]}"
