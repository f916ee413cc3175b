"""Platforms as the cloud modules describe them, and every profile rendered for each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from ops.deploy.examples import ENVIRONMENTS
from ops.deploy.manifests import Manifest, manifests
from ops.deploy.platform import NEUTRAL, Platform
from ops.problem import Problem
from ops.settings import PROFILES
from serve_app.config import Config, load_config

IMAGE = "registry.internal/pixtral-serve@sha256:" + "0" * 64
HOST = "pixtral.example.internal"
_FOLDERS = sorted(ENVIRONMENTS.glob("*/workload"))


def described(name: str) -> dict[str, Any]:
    """An environment's platform as ``terraform output -json platform`` prints it."""
    file = ENVIRONMENTS / name / "workload" / "example.platform.json"
    values: dict[str, Any] = json.loads(file.read_text())
    return values


@cache
def platforms() -> dict[str, Platform]:
    clouds = {
        folder.parent.name: Platform.model_validate(described(folder.parent.name))
        for folder in _FOLDERS
    }
    return {"neutral": NEUTRAL} | clouds


@cache
def profiles() -> dict[str, Config]:
    """Those that ship; the one without a model gets a name for it."""
    configs = {}
    for file in sorted(PROFILES.glob("*.yaml")):
        unnamed = {"model.path": "pixtral-nano"} if file.stem == "local" else {}
        configs[file.stem] = load_config(file, unnamed)
    return configs


@cache
def rendered(profile: str, platform: str) -> list[Manifest]:
    """Rendered once for all tests, which change copies only."""
    return manifests(profiles()[profile], platforms()[platform], IMAGE, HOST)


def pairs() -> list[tuple[str, str]]:
    """Every profile with every platform that can hold it; GPU profiles refuse the neutral one."""
    return [
        (profile, platform)
        for profile in profiles()
        for platform in platforms()
        if profile == "local" or platform != "neutral"
    ]


def all_manifests() -> Iterator[Manifest]:
    for profile, platform in pairs():
        try:
            yield from rendered(profile, platform)
        except Problem as problem:
            raise AssertionError(f"{profile} on {platform}: {problem}") from problem
