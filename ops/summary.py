"""What `pixtral up` ends with: every address, a key and a line to paste."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from ops.edge import Endpoints
from ops.launch import UNTRAINED, Up


def as_json(up: Up) -> str:
    endpoints = Endpoints.of(up.config)
    return json.dumps(
        {
            "base_url": endpoints.base_url,
            "api_key": up.api_key,
            "model": up.config.model.name,
            "untrained": up.config.model.untrained,
            "dashboard": endpoints.dashboard,
            "metrics": endpoints.metrics,
            "prometheus": endpoints.prometheus,
        },
        indent=2,
    )


def as_text(up: Up, ray_token: Path) -> str:
    """``ray_token``: the file with the dashboard's token, which itself is never printed."""
    config, endpoints = up.config, Endpoints.of(up.config)
    lines = [
        "pixtral already runs." if up.already else "pixtral is up.",
        "",
        f"  API            {endpoints.base_url}",
        f"  models         {endpoints.base_url}/models",
        f"  API schema     {endpoints.root}/openapi.json",
        f"  ready?         {endpoints.root}/readyz",
        f"  metrics        {endpoints.metrics}",
        f"  Ray dashboard  {endpoints.dashboard}",
        f"                 asks for a token; show it with:  cat {ray_token}",
        f"  model          {config.model.name}  ({config.model.path})",
    ]
    if endpoints.prometheus is not None:
        lines.append(f"  Prometheus     {endpoints.prometheus}")
        lines.append("                 its page has Graph, Alerts, Status → Targets")
    if config.gateway.auth:
        lines.append(f"  key            {up.api_key}")
        lines.append(f"                 kept in {config.gateway.api_key_file}")
    else:
        lines.append("  key            none is asked for (--no-auth)")
    lines += ["", "Ask from a shell:", "", curl_line(up), "", "or with a picture:", ""]
    lines.append(f'  {program()} ask "What is in this picture?" --image FILE')
    if config.model.untrained:
        lines += ["", UNTRAINED.format(name=config.model.name)]
    return "\n".join(lines)


def program() -> str:
    """How this command is called from here: by name, if the shell would find it."""
    return "pixtral" if shutil.which("pixtral") else str(Path(sys.prefix, "bin", "pixtral"))


def curl_line(up: Up) -> str:
    """Works as it stands when pasted."""
    body = {
        "model": up.config.model.name,
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 32,
    }
    authorization = f" -H 'Authorization: Bearer {up.api_key}'" if up.config.gateway.auth else ""
    return (
        f"  curl {Endpoints.of(up.config).base_url}/chat/completions{authorization}"
        f" -H 'Content-Type: application/json' -d '{json.dumps(body)}'"
    )
