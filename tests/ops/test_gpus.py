import subprocess
from dataclasses import replace

import pytest

from ops import gpus
from ops.gpus import Gpu
from serve_app.config import load_config

SAID = """\
0, NVIDIA A100-SXM4-80GB, 550.54.15, 81920, 3, Enabled, 0
1, NVIDIA A100-SXM4-80GB, 550.54.15, 81920, 3, Enabled, [N/A]
"""
GPU_CONFIG = {"model.path": "x", "decoder.device": "cuda", "decoder.tensor_parallel": 2}


@pytest.fixture
def config():
    return load_config(None, GPU_CONFIG)


@pytest.fixture
def pair():
    return gpus.parse(SAID)


def test_what_nvidia_smi_says(pair):
    assert pair[0] == Gpu(0, "NVIDIA A100-SXM4-80GB", "550.54.15", 80 * 2**30, 3 * 2**20, True, 0)
    assert pair[1].uncorrected is None


def test_good_gpus(pair, config):
    finding = gpus.judge(pair, config, running=False)
    assert finding.ok
    assert finding.found == "2 x NVIDIA A100-SXM4-80GB, 80.0 GiB each, driver 550.54.15"


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"uncorrected": 3}, "GPU 1 has 3 uncorrected ECC errors: take the node out"),
        ({"used": 20 * 2**30}, "somebody uses GPU 1"),
        ({"persistent": False}, "nvidia-smi -pm 1"),
        ({"name": "NVIDIA L4"}, "needs equal GPUs"),
    ],
)
def test_each_trouble_has_its_advice(pair, config, change, advice):
    one, other = pair
    assert advice in gpus.judge([one, replace(other, **change)], config, running=False).advice


def test_our_own_memory_is_no_trouble(pair, config):
    one, other = pair
    assert gpus.judge([one, replace(other, used=70 * 2**30)], config, running=True).ok


def test_too_few(pair, config):
    assert "a group needs 2" in gpus.judge(pair[:1], config, running=False).advice


def test_without_gpus_one_line(monkeypatch, config):
    monkeypatch.setattr("shutil.which", lambda name: None)
    (wanted,) = gpus.examine_gpus(config, running=False)
    assert "install NVIDIA's driver" in wanted.advice
    (finding,) = gpus.examine_gpus(load_config(None, {"model.path": "x"}), running=False)
    assert finding.line() == "ok       GPUs        none here (there is no nvidia-smi)"


def test_a_driver_that_is_broken(monkeypatch, config, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2\nexit 9\n")
    fake.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(fake))
    (finding,) = gpus.examine_gpus(config, running=False)
    assert (finding.found, finding.ok) == ("NVIDIA-SMI has failed", False)


def test_the_command_is_asked_for_what_is_parsed(monkeypatch, config, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\necho \"$@\" > {tmp_path}/asked\nprintf '{SAID}'\n")
    fake.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(fake))
    finding, *_ = gpus.examine_gpus(config, running=False)
    assert finding.ok, finding
    asked = (tmp_path / "asked").read_text()
    assert asked.count(",") == SAID.splitlines()[0].count(",") + 2  # two more in the format
    assert subprocess.run([fake], check=True).returncode == 0


def test_peer_access():
    assert gpus.links(4, (), (2, 27, 3)).found == "2.27.3; all 4 GPUs reach each other's memory"
    finding = gpus.links(4, ((0, 2), (2, 0)), (2, 27, 3))
    assert finding.found.endswith("between GPUs 0-2")
    assert "topo -m" in finding.advice
