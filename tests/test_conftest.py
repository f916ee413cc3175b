"""The fences around every test do fence."""

from __future__ import annotations

import asyncio
import socket
import urllib.request
from pathlib import Path

import pytest

from tests.network_guard import NetworkGuard, OutsideLoopbackError, is_local

# TEST-NET-1 and .invalid: even without the guard these reach nobody.
ELSEWHERE = "192.0.2.1"


@pytest.fixture
def refused(network_guard: NetworkGuard):
    """The attempts of a test that means to be refused."""
    yield network_guard.attempts
    network_guard.attempts.clear()


@pytest.mark.parametrize("method", ["connect", "connect_ex"])
def test_connecting_elsewhere_is_refused(refused, method):
    with socket.socket() as sock, pytest.raises(OutsideLoopbackError, match="loopback only"):
        getattr(sock, method)((ELSEWHERE, 80))
    assert refused == [f"socket.connect ('{ELSEWHERE}', 80)"]


def test_a_datagram_elsewhere_is_refused(refused):
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(OutsideLoopbackError):
        sock.sendto(b"hello", (ELSEWHERE, 53))
    assert len(refused) == 1


def test_asking_the_kernel_for_a_route_is_refused_but_no_failure(network_guard):
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(OSError, match="loopback"):
        sock.connect((ELSEWHERE, 53))
    assert network_guard.attempts == []


def test_a_name_is_not_looked_up(refused):
    with pytest.raises(OutsideLoopbackError, match="look up no names"):
        socket.getaddrinfo("models.invalid", 443)
    assert len(refused) == 1


def test_a_library_meets_the_guard_too(refused):
    with pytest.raises(OSError, match="loopback"):
        urllib.request.urlopen(f"http://{ELSEWHERE}/", timeout=1)
    assert len(refused) == 1


async def test_asyncio_meets_the_guard_too(refused):
    with pytest.raises(OSError, match="loopback"):
        await asyncio.wait_for(asyncio.open_connection(ELSEWHERE, 80), 1)
    assert len(refused) == 1


def test_loopback_and_unix_sockets_work(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), timeout=1).close()
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("0.0.0.0", True),
        ("localhost", True),
        (None, True),
        (b"127.0.0.1", True),
        ("10.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("localhost.invalid", False),
    ],
)
def test_what_counts_as_this_machine(host, local):
    assert is_local(host) is local


def test_a_swallowed_attempt_fails_the_test_all_the_same(pytester: pytest.Pytester):
    pytester.makepyfile(
        """
        import contextlib, socket

        def test_swallows():
            with contextlib.suppress(OSError), socket.socket() as sock:
                sock.connect(("192.0.2.1", 80))
        """
    )
    result = _run(pytester)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*tried to leave loopback: socket.connect*192.0.2.1*"])


def test_ray_does_not_start_in_a_unit_test():
    import ray

    with pytest.raises(RuntimeError, match="move this test to tests/cluster"):
        ray.init()
    assert not ray.is_initialized()


SKIPPING = """
    import pytest

    def test_package():
        pytest.skip("needs package nonesuch")

    def test_import():
        pytest.importorskip("nonesuch")

    def test_device():
        pytest.skip("needs a CUDA device")
    """


def test_in_ci_a_missing_package_is_a_failure(pytester, monkeypatch):
    monkeypatch.setenv("PIXTRAL_CI", "1")
    pytester.makepyfile(SKIPPING)
    result = _run(pytester)
    result.assert_outcomes(failed=2, skipped=1)
    result.stdout.fnmatch_lines(["*skipped in CI: needs package nonesuch*"])


def test_on_a_laptop_a_missing_package_is_a_skip(pytester, monkeypatch):
    monkeypatch.delenv("PIXTRAL_CI", raising=False)
    pytester.makepyfile(SKIPPING)
    _run(pytester).assert_outcomes(skipped=3)


def _run(pytester: pytest.Pytester) -> pytest.RunResult:
    """Run the inner tests under this suite's own conftest, in a process of their own."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
        return pytester.runpytest_subprocess("-p", "tests.conftest", "-p", "no:cacheprovider")
