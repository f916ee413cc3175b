"""What holds for every test: loopback only, no model hub, no Ray in unit tests, no quiet skips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.network_guard import NetworkGuard

# Before anything imports the libraries that read these.
os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    RAY_USAGE_STATS_ENABLED="0",
    DO_NOT_TRACK="1",
    # Ray keeps these for the life of the process that imports it: the one system that the cluster
    # tests drive has its state here (see serve_app.cluster.connected).
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN_PATH=str(Path(tempfile.mkdtemp(prefix="pixtral-tests-")) / "ray-token"),
    RAY_ENABLE_AUTO_CONNECT="0",
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_allow_out_of_band_object_ref_serialization="0",
)

pytest_plugins = ["pytester"]

_TESTS = Path(__file__).parent
_MAY_START_RAY = (_TESTS / "cluster", _TESTS / "e2e")
_GUARD = NetworkGuard()


def pytest_configure() -> None:
    _GUARD.install()


@pytest.fixture(autouse=True)
def network_guard() -> Iterator[NetworkGuard]:
    """Fails a test that tried to leave this machine, even where the error was swallowed."""
    _GUARD.attempts.clear()
    yield _GUARD
    if _GUARD.attempts:
        pytest.fail(f"tried to leave loopback: {', '.join(_GUARD.attempts)}")


@pytest.fixture(autouse=True)
def _no_ray_in_unit_tests(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(request.path.is_relative_to(folder) for folder in _MAY_START_RAY):
        return
    import ray

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("unit tests start no Ray: move this test to tests/cluster")

    monkeypatch.setattr(ray, "init", refuse)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_missing_package(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_missing_package(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests found out for a person: ``record_property("told", "…")``."""
    told = [
        str(text)
        for report in terminalreporter.stats.get("passed", ())
        for name, text in report.user_properties
        if name == "told" and report.when == "call"
    ]
    if told:
        terminalreporter.section("told by tests")
        terminalreporter.write_line("\n".join(sorted(told)))


def _fail_missing_package(report: pytest.TestReport | pytest.CollectReport) -> None:
    """CI installs everything: a test skipped because a package is missing did not do its work."""
    if os.environ.get("PIXTRAL_CI") != "1" or not report.skipped:
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if reason.startswith(("needs package", "could not import")):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {reason}"
