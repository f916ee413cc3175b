"""The gateway tier: the REST application of ``api.py`` inside a Serve ingress replica."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from ray import serve

from serve_app.config import Config, ConfigError
from serve_app.gateway.api import create_app
from serve_app.serve_handles import ServeTiers
from serve_app.telemetry import GatewayMetrics
from shards.tokenizer import Tokenizer


@serve.ingress()
class Gateway:
    """Serve deployment; the handles are those bound in ``app.py``."""

    def __init__(
        self, config: Config, max_context_tokens: int, preprocess: Any, vision: Any, decoder: Any
    ) -> None:
        self._config = config
        self._max_context_tokens = max_context_tokens
        self._metrics = GatewayMetrics(config.model.name)
        self._tiers = ServeTiers(preprocess, vision, decoder, self._metrics)

    def __serve_build_asgi_app__(self) -> FastAPI:
        gateway = self._config.gateway
        key = gateway.api_key_file.read_text().strip() if gateway.api_key_file else None
        if gateway.auth and not key:
            raise ConfigError("gateway.api_key_file: names no key while gateway.auth is true")
        return create_app(
            self._config,
            self._tiers,
            Tokenizer.from_folder(self._config.model.path).vocabulary,
            key if gateway.auth else None,
            self._max_context_tokens,
        )
