"""From what the operator typed to one config: profile, then options, then the bundled model.

--config FILE    the `local` profile when absent
--model DIR      over the file's model.path; the bundled model when neither names one
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ops.state import State
from serve_app.config import Config, ConfigError, load_config

PROFILES = Path(__file__).parent / "profiles"
BUNDLED_NAME = "pixtral-nano"


@dataclass(frozen=True, slots=True)
class Options:
    """What `pixtral up` was given; None where nothing was said."""

    config: Path | None = None
    model: Path | None = None
    port: int | None = None
    tensor_parallel: int | None = None
    auth: bool | None = None
    observe: bool | None = None

    @property
    def given(self) -> bool:
        return self != Options()


def resolve(options: Options, make_bundled: Callable[[Path], Path], state: State) -> Config:
    """The config to run, all paths absolute: the tiers' working folders are not this one.

    Args:
        make_bundled: asked for the bundled model only where it is used.
        state: where key, accounts and journal are kept unless the file says otherwise.

    Raises:
        ConfigError: unreadable file, unknown key or bad value.
    """
    _check(options)
    file = options.config or PROFILES / "local.yaml"
    overrides: dict[str, Any] = {}
    if options.port is not None:
        overrides["gateway.port"] = options.port
    if options.tensor_parallel is not None:
        overrides["decoder.tensor_parallel"] = options.tensor_parallel
    if options.auth is not None:
        overrides["gateway.auth"] = options.auth
    if options.observe is not None:
        overrides["observe.enabled"] = options.observe
    if options.model is not None:
        overrides["model.path"] = str(options.model)
    bundled = options.model is None and not _names_a_model(file)
    if bundled:
        overrides["model.path"] = str(bundled_folder())
    # Read before the model is made: a bad file is refused before work is spent on it.
    config = load_config(file, overrides)
    folder = make_bundled(config.model.path) if bundled else config.model.path
    accounting = config.accounting
    overrides |= {
        "model.path": _absolute(folder),
        "gateway.api_key_file": _absolute(config.gateway.api_key_file or state.key_file),
        "decoder.journal_folder": _absolute(config.decoder.journal_folder or state.journal_folder),
        "accounting.database_url": accounting.database_url or state.database_url,
        "accounting.pepper_file": _absolute(accounting.pepper_file or state.pepper_file),
    }
    for key in ("database_password_file", "metrics_token_file"):
        if (secret := getattr(accounting, key)) is not None:
            overrides[f"accounting.{key}"] = _absolute(secret)
    return load_config(file, overrides)


def _check(options: Options) -> None:
    """What was typed is refused as it was typed, not as a key of a file."""
    if options.port is not None and not 1 <= options.port <= 65535:
        raise ConfigError(f"--port {options.port}: must be between 1 and 65535")
    if options.tensor_parallel is not None and options.tensor_parallel < 1:
        raise ConfigError(f"--tp {options.tensor_parallel}: must be at least 1")


def bundled_folder(environment: Mapping[str, str] = os.environ) -> Path:
    cache = environment.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "pixtral-serve" / "models" / BUNDLED_NAME


def _absolute(path: Path) -> str:
    return str(path.expanduser().resolve())


def _names_a_model(file: Path) -> bool:
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError):
        return True  # load_config tells what is wrong with the file
    model = values.get("model") if isinstance(values, dict) else None
    return isinstance(model, dict) and "path" in model
