import os
import resource

import pytest

from ops import host


@pytest.fixture
def weights(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(os.urandom(20 * 2**20))
    (tmp_path / "b.safetensors").write_bytes(b"small")
    return tmp_path


def test_the_disk_is_measured(weights):
    finding = host.disk_speed(weights)
    assert finding.ok
    assert finding.found.startswith("20 MiB at ")


def test_a_slow_disk_is_told_by_how_long_it_takes(weights):
    ticks = iter(range(0, 10_000, 500))
    finding = host.disk_speed(weights, clock=lambda: float(next(ticks)))
    assert "local NVMe" in finding.advice
    assert " min" in finding.found


def test_the_time_is_that_of_all_files_at_the_pace_of_what_was_read(weights):
    """Two files of 20 MiB, of which 8 MiB are read in ten seconds."""
    (weights / "b.safetensors").write_bytes(bytes(20 * 2**20))
    ticks = iter([0.0, *[10.0] * 20])
    finding = host.disk_speed(weights, clock=lambda: next(ticks))
    assert finding.found.startswith("40 MiB at ")
    assert finding.found.endswith(" 50.0 s")


def test_nothing_to_read(tmp_path):
    assert host.disk_speed(tmp_path).ok
    (tmp_path / "a.safetensors").touch()
    assert "no weights to read" in host.disk_speed(tmp_path).found


def test_a_disk_without_direct_reads_is_read_all_the_same(weights, monkeypatch):
    real = os.open

    def refuse_direct(file, flags, *rest):
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return real(file, flags, *rest)

    monkeypatch.setattr(os, "open", refuse_direct)
    assert "through the page cache" in host.disk_speed(weights).found


def test_too_few_open_files(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 4096))
    assert "allow 65536 open files" in host.limits(many=True).advice
    assert host.limits(many=False).ok
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1024))
    assert "allow 4096 open files" in host.limits(many=False).advice
    infinite = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, infinite))
    assert host.limits(many=True).ok


def test_the_containers_memory(tmp_path):
    assert host.cgroup(tmp_path).ok
    (tmp_path / "memory.max").write_text("max")
    assert host.cgroup(tmp_path).found == "no memory bound"
    (tmp_path / "memory.max").write_text(str(10 * 2**20))
    (tmp_path / "memory.current").write_text(str(9.5 * 2**20).removesuffix(".0"))
    (tmp_path / "memory.stat").write_text("inactive_file 0\n")
    assert "the kernel will kill" in host.cgroup(tmp_path).advice
    (tmp_path / "memory.stat").write_text(f"inactive_file {5 * 2**20}\n")
    assert host.cgroup(tmp_path).ok


def test_the_kernels_clock(monkeypatch):
    assert host.clock_state() in (None, *range(6))
    for state, ok in ((0, True), (5, False), (None, True)):
        monkeypatch.setattr(host, "clock_state", lambda state=state: state)
        assert host.local_clock(many=True).ok is ok
        assert host.local_clock(many=False).ok


def test_skew_counts_beyond_what_the_way_takes():
    assert host.clock_skew(1000.2, 1000.0, 1000.4).found.startswith("+0.000 s")
    assert host.clock_skew(1003.0, 1000.0, 1003.0).ok, "1.5 s, give or take 1.5 s"
    assert not host.clock_skew(1002.0, 1000.0, 1000.1).ok
    assert not host.clock_skew(998.0, 1000.0, 1000.1).ok
