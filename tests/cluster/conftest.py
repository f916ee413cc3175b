import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import nano
from serve_app import cluster
from serve_app.accounting.office import prepare
from tests.cluster.collector import Collector, collecting
from tests.cluster.system import KEY, System, make_config


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nano.ensure(tmp_path_factory.mktemp("models") / "nano")


@pytest.fixture(scope="package")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="package")
def system(model: Path, collector: Collector) -> Iterator[System]:
    """One system for all cluster tests; a test that hurts it waits until it is whole again."""
    state = Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent
    fast = {"min_replicas": 1, "upscale_delay_s": 0.5, "downscale_delay_s": 2.0}
    # Of a replica that has nothing to do is to be seen what it did.
    sleeps = {"min_replicas": 0, "downscale_delay_s": 12.0}
    config = make_config(
        model,
        state,
        {
            "decoder.tensor_parallel": 2,
            "decoder.kv_cache_bytes": 64 * 2**20,
            "decoder.token_timeout_s": 30,
            "telemetry": {"otlp_endpoint": collector.url, "accept_parent": True},
            "preprocess.autoscaling": {**fast, "max_replicas": 3, "target_ongoing_requests": 1},
            # Low, as on two cores the decoder, not the encoder, is where requests pile up.
            "vision.autoscaling": {**fast, **sleeps, "max_replicas": 2, "target_patches": 100},
        },
    )
    prepare(config, KEY)
    try:
        cluster.start(config, state)
        # One connection for everything: Serve's clients do not outlive the one they were made in.
        with cluster.connected(config, state):
            cluster.deploy(config, state)
            running = System(config, state)
            running.wait_ready()
            yield running
    finally:
        cluster.stop(config, state)


@pytest.fixture(autouse=True)
def _whole_again(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "system" in request.fixturenames:
        request.getfixturevalue("system").wait_ready()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.cluster)
