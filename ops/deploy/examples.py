"""What ``terraform/environments/*/workload`` plans with, rendered anew:

    python -m ops.deploy.examples

Each environment's ``example.platform.json`` is its cluster's output as an example; beside it this
writes ``example.manifests.yaml``, Pixtral Large in bfloat16 on that platform. A test compares them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ops.deploy.command import DEFAULT_HOST
from ops.deploy.manifests import documents, manifests
from ops.deploy.platform import load_platform
from ops.settings import PROFILES
from serve_app.config import load_config

ENVIRONMENTS = Path(__file__).parents[2] / "terraform" / "environments"
PROFILE = PROFILES / "pixtral-large-bf16-4xa100.yaml"
IMAGE = "registry.example.internal/pixtral-serve:0.1.0"


def examples() -> Iterator[tuple[Path, str]]:
    """Each file and what belongs in it."""
    config = load_config(PROFILE)
    for file in sorted(ENVIRONMENTS.glob("*/workload/example.platform.json")):
        rendered = documents(manifests(config, load_platform(file), IMAGE, DEFAULT_HOST))
        yield file.with_name("example.manifests.yaml"), rendered


if __name__ == "__main__":
    for path, text in examples():
        path.write_text(text)
