from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import uvicorn

from serve_app.config import Config, parse_config
from serve_app.gateway.api import create_app
from shards.tokenizer import Tokenizer
from tests.serve_app.gateway.client_cases import Endpoint
from tests.serve_app.gateway.engine_tiers import (
    MAX_CONTEXT_TOKENS,
    EngineTiers,
    mistral_common_data,
)

KEY = "sk-pixtral-tests"
MODEL = "pixtral-large"
ALIAS = "pixtral-large-latest"


@dataclass
class Gateway:
    """A served application: reach it by ``endpoint``, steer it by ``tiers``."""

    endpoint: Endpoint
    tiers: EngineTiers
    config: Config


class GatewayServer:
    """create_app under uvicorn in a thread of its own, on a port that the system picks."""

    def __init__(self, tokenizer: Tokenizer, **sections: dict[str, object]) -> None:
        model = {"path": "/models/" + MODEL, "aliases": (ALIAS,), **sections.pop("model", {})}
        config = parse_config({"model": model, **sections})
        tiers = EngineTiers(tokenizer, config.preprocess)
        key = KEY if config.gateway.auth else None
        app = create_app(config, tiers, tokenizer.vocabulary, key, MAX_CONTEXT_TOKENS)
        self._server = uvicorn.Server(
            uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off")
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        endpoint = Endpoint(f"http://127.0.0.1:{port}", KEY, config.model.name)
        self.gateway = Gateway(endpoint, tiers, config)

    def stop(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(timeout=10)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer(mistral_common_data("mistral_instruct_tokenizer_241114.model.v7m1"))


@pytest.fixture
def serve(tokenizer: Tokenizer) -> Iterator[Callable[..., Gateway]]:
    """Serve with other settings: ``serve(gateway={"max_pictures": 1})``."""
    servers: list[GatewayServer] = []

    def start(**sections: dict[str, object]) -> Gateway:
        servers.append(GatewayServer(tokenizer, **sections))
        return servers[-1].gateway

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def gateway(serve: Callable[..., Gateway]) -> Gateway:
    return serve()


@pytest.fixture
def endpoint(gateway: Gateway) -> Endpoint:
    return gateway.endpoint
