"""The gateway tier: the REST application of ``api.py`` inside a Serve ingress replica.

Serve runs the application's lifespan: the accounts are opened before the replica takes requests,
and closed, all settled, when it is stopped.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any
from uuid import uuid4

from fastapi import FastAPI
from ray import serve

from serve_app.accounting.office import Office
from serve_app.config import Config
from serve_app.errors import faults
from serve_app.garbage import spare_what_is_loaded
from serve_app.gateway.api import create_app
from serve_app.gateway.meters import RayMeter
from serve_app.observed import observed
from serve_app.serve_handles import ServeTiers
from serve_app.telemetry import AccountsMetrics, BuildMetrics, GatewayMetrics
from shards.tokenizer import Tokenizer


@serve.ingress()
class Gateway:
    """Serve deployment; the handles are those bound in ``app.py``."""

    def __init__(
        self, config: Config, max_context_tokens: int, preprocess: Any, vision: Any, decoder: Any
    ) -> None:
        self._config = config
        self._max_context_tokens = max_context_tokens
        self._tracing = observed(config, "gateway")
        self._metrics = GatewayMetrics(config.model.name, faults())
        self._build = BuildMetrics(build_labels(config))
        self._tiers = ServeTiers(
            preprocess, vision, decoder, self._metrics, self._tracing, may_sleep(config)
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = create_app(
            self._config,
            self._tiers,
            Tokenizer.from_folder(self._config.model.path).vocabulary,
            Office(
                self._config,
                self._tiers,
                owner=f"gateway-{uuid4()}",
                meter=RayMeter(AccountsMetrics(), self._metrics, self._tracing),
            ),
            self._max_context_tokens,
            self._metrics,
            self._tracing,
        )
        spare_what_is_loaded()
        return app


def may_sleep(config: Config) -> frozenset[str]:
    """Tiers that run no replica while there is nothing to do."""
    scaling = {
        "preprocessing": config.preprocess.autoscaling,
        "vision": config.vision.autoscaling,
    }
    return frozenset(name for name, tier in scaling.items() if not tier.min_replicas)


def build_labels(config: Config) -> dict[str, str]:
    """What ``pixtral_build_info`` says of a system."""
    decoder = config.decoder
    return {
        "version": version("pixtral-serve"),
        "model": config.model.name,
        "device": decoder.device,
        "dtype": decoder.dtype,
        "tensor_parallel": str(decoder.tensor_parallel),
        "simulated": "no" if decoder.simulate is None else "yes",
        "database": "sqlite" if config.accounting.single_gateway else "postgresql",
    }
