import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ops.bench.ports import free_ports
from tests.e2e.system import UP_TIMEOUT_S, Home, System
from tests.ops.fakes import write_config

LOCAL = """
decoder: {tensor_parallel: 2, kv_cache_bytes: 67108864}
"""


@pytest.fixture(scope="session")
def make_home(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Home]:
    """A home of its own for a system; all share the bundled model, which is made once."""
    cache = tmp_path_factory.mktemp("cache")

    def make() -> Home:
        folder = tmp_path_factory.mktemp("home")
        config_file = write_config(folder / "config.yaml", free_ports(4), LOCAL)
        return Home(folder / "state", cache, config_file)

    return make


# By package: the system is stopped before other tests need the machine.
@pytest.fixture(scope="package")
def system(make_home: Callable[[], Home]) -> Iterator[System]:
    home = make_home()
    started = home.pixtral(
        *("up", "--detach", "--json", "--config", str(home.config_file)), timeout_s=UP_TIMEOUT_S
    )
    try:
        assert started.returncode == 0, started.stderr
        yield System(home, json.loads(started.stdout))
    finally:
        home.pixtral("down")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.e2e)
