import shutil
from types import SimpleNamespace

import pytest
import torch

from ops import doctor, host
from ops.bench.ports import free_ports
from ops.finding import Finding
from serve_app.config import load_config
from tests.ops.fakes import FakeGateway, write_config, write_model


@pytest.fixture
def config(tmp_path):
    file = write_config(tmp_path / "config.yaml", free_ports(4))
    return load_config(
        file,
        {
            "model.path": str(write_model(tmp_path / "model")),
            "accounting.database_url": f"sqlite:///{tmp_path / 'accounting.sqlite'}",
        },
    )


def test_this_python_and_this_ray_are_good():
    assert doctor.python().ok
    assert doctor.package("ray", "2.60").ok


def test_a_wrong_or_missing_package():
    assert "made for ray 1.0" in doctor.package("ray", "1.0").advice
    assert doctor.package("nonesuch-package", "1").found == "not installed"


def test_a_cpu_build_serves_a_cpu_config_only(config, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert doctor.torch_build(config).ok
    gpu = load_config(None, {"model.path": "x", "decoder.device": "cuda"})
    assert "install a CUDA build" in doctor.torch_build(gpu).advice


def test_a_cuda_build_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu = load_config(None, {"model.path": "x", "vision.device": "cuda"})
    assert "nvidia-smi" in doctor.torch_build(gpu).advice


def test_shared_memory_must_hold_the_object_store(config, monkeypatch):
    free = SimpleNamespace(free=64 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: free)
    finding = doctor.shared_memory(config)
    assert finding.found == "64 MiB free"
    assert "give it 512 MiB (in a container: --shm-size)" in finding.advice
    free.free = 2**30
    assert doctor.shared_memory(config).ok


def test_no_shared_memory_at_all(config, tmp_path):
    assert "mount a tmpfs" in doctor.shared_memory(config, tmp_path / "none").advice


def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2**20))
    assert not doctor.disk(tmp_path).ok


def test_a_running_system_that_is_not_ready_is_a_problem(config):
    gateway = FakeGateway(ready=False, reasons=("group a is silent",))
    with gateway.serve(config.gateway.port):
        assert doctor.ports(config, running=True).advice == "not ready: group a is silent"
        gateway.ready = True
        assert doctor.ports(config, running=True).ok


def test_what_our_own_system_takes_is_not_asked_for_twice(config, tmp_path):
    subjects = {
        running: [each.subject for each in doctor.examine(config, temp=tmp_path, running=running)]
        for running in (False, True)
    }
    assert [*subjects[True], "memory"] == subjects[False]


def test_clocks_are_compared_only_where_the_database_answers(config, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "skew", lambda config: Finding("skew", "+0.001 s"))
    monkeypatch.setattr(host, "limits", lambda many: Finding("limits", ""))
    many = config.model_copy(
        update={
            "accounting": config.accounting.model_copy(
                update={"database_url": "postgresql://nobody@127.0.0.1:1/none"}
            )
        }
    )

    def subjects(kept):
        monkeypatch.setattr(doctor, "accounts", lambda config: kept)
        return [each.subject for each in doctor.examine(many, temp=tmp_path, running=True)]

    assert "skew" not in subjects(Finding("accounts", "", "no answer"))
    assert "skew" in subjects(Finding("accounts", "PostgreSQL answers"))


def test_a_missing_model_ends_the_examination(config, tmp_path):
    lost = load_config(None, {"model.path": str(tmp_path / "nowhere")})
    *_, last = doctor.examine(lost, temp=tmp_path, running=False)
    assert (last.subject, last.ok) == ("model", False)


def test_a_line_reads_well():
    assert Finding("ray", "2.60.0").line() == "ok       ray         2.60.0"
    mark, advice = Finding("disk", "1 MiB free", "free some").line().splitlines()
    assert mark == "problem  disk        1 MiB free"
    assert advice.strip() == "free some"
    assert advice.index("f") == mark.index("1")
