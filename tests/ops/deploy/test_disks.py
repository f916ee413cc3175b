"""Raw NVMe disks: what the script does to a node, and what waits for it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ops.deploy import layout
from ops.deploy.disks import SCRIPT, local_disks
from ops.deploy.platform import Platform
from tests.ops.deploy.looking import of_kind, pods
from tests.ops.deploy.platforms import IMAGE, described, platforms, rendered

PROFILE = "pixtral-large-bf16-4xa100"
NODE = {"nvme0n1": "Microsoft NVMe Direct Disk", "nvme1n1": "Microsoft NVMe Direct Disk v2"}
MANAGED = {"sda": "Virtual Disk", "nvme9n1": "MSFT NVMe Accelerator v1.0"}

# Each tool writes down how it was called; those that tell something read it from a file.
_TOOLS = ("lsblk", "blkid", "wipefs", "mdadm", "mkfs.ext4", "mount", "mountpoint", "install")
_STUB = """#!/bin/bash
echo "$(basename "$0") $*" >> "$NODE/called"
case "$(basename "$0")" in
  mountpoint) test -e "$NODE/mounted" ;;
  lsblk) cat "$NODE/disks" ;;
  blkid) test -e "$NODE/label" && cat "$NODE/label" ;;
  wipefs) test ! -e "$NODE/signature" || cat "$NODE/signature" ;;
  mdadm) if [ "$1" = --assemble ] && [ -e "$NODE/array" ]; then cp "$NODE/array" "$NODE/label"; fi
esac
"""


class Node:
    """A machine of files, on which the script runs with stubs for what changes disks."""

    def __init__(self, folder: Path, disks: dict[str, str]) -> None:
        self.folder = folder
        self.path = folder / "nvme"
        (folder / "disks").write_text("".join(f"/dev/{n}  {m}  \n" for n, m in disks.items()))
        for tool in _TOOLS:
            (folder / tool).write_text(_STUB)
            (folder / tool).chmod(0o755)

    def join(self) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.folder}:{os.environ['PATH']}", "NODE": str(self.folder)}
        command = ["bash", "-c", SCRIPT.read_text(), "join-disks", str(self.path), "1000"]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    def called(self, tool: str) -> list[str]:
        lines = (self.folder / "called").read_text().splitlines()
        return [line for line in lines if line.split()[0] == tool]


def test_several_disks_become_one(tmp_path: Path):
    node = Node(tmp_path, MANAGED | NODE)

    assert node.join().returncode == 0
    create = "mdadm --create /dev/md0 --run --level 0 --raid-devices 2 /dev/nvme0n1 /dev/nvme1n1"
    assert create in node.called("mdadm")
    assert node.called("mkfs.ext4") == ["mkfs.ext4 -q -m 0 -L pixtral-nvme /dev/md0"]
    assert node.called("mount") == [f"mount -o noatime /dev/md0 {node.path}"]
    assert node.called("install") == [f"install -d -o 1000 -g 1000 {node.path}/weights"]


def test_one_disk_needs_no_array(tmp_path: Path):
    node = Node(tmp_path, {"nvme0n1": NODE["nvme0n1"]})

    assert node.join().returncode == 0
    assert not any("--create" in line for line in node.called("mdadm"))
    assert node.called("mount") == [f"mount -o noatime /dev/nvme0n1 {node.path}"]


def test_what_is_mounted_is_left_alone(tmp_path: Path):
    node = Node(tmp_path, NODE)
    (tmp_path / "mounted").touch()

    assert node.join().returncode == 0
    for tool in ("mdadm", "mkfs.ext4", "mount"):
        assert node.called(tool) == []
    assert node.called("install")


@pytest.mark.parametrize("found_at_once", [True, False])
def test_after_a_restart_what_was_made_is_found_and_not_formatted(
    tmp_path: Path, found_at_once: bool
):
    node = Node(tmp_path, NODE)
    (tmp_path / ("label" if found_at_once else "array")).write_text("/dev/md127\n")

    assert node.join().returncode == 0
    assert node.called("mkfs.ext4") == []
    assert node.called("mount") == [f"mount -o noatime /dev/md127 {node.path}"]


def test_somebody_elses_disk_is_refused(tmp_path: Path):
    node = Node(tmp_path, NODE)
    (tmp_path / "signature").write_text("0x438 ext4 data\n")

    done = node.join()
    assert done.returncode == 1
    assert "somebody else's" in done.stderr
    for tool in ("mkfs.ext4", "mount", "install"):
        assert node.called(tool) == []


def test_managed_disks_are_never_taken(tmp_path: Path):
    node = Node(tmp_path, MANAGED)

    done = node.join()
    assert done.returncode == 1
    assert "no disk of this node" in done.stderr
    assert node.called("mkfs.ext4") == []


def test_a_failed_mount_is_an_error_and_leaves_no_folder_to_write_into(tmp_path: Path):
    node = Node(tmp_path, NODE)
    (tmp_path / "mount").write_text("#!/bin/bash\nexit 32\n")

    assert node.join().returncode == 32
    assert node.called("install") == []


@pytest.mark.parametrize("platform", list(platforms()))
def test_only_raw_disks_are_joined_and_by_every_node_that_has_them(platform: str):
    sets = local_disks(platforms()[platform], IMAGE)
    raw = {
        tier
        for tier, pool in platforms()[platform].pools.items()
        if pool.raw_disks and pool.max_nodes
    }

    assert {each["metadata"]["name"].rpartition("-")[2] for each in sets} == raw
    assert bool(raw) == platform.startswith("azure-")
    for manifest in sets:
        tier = manifest["metadata"]["name"].rpartition("-")[2]
        pool = platforms()[platform].pools[tier]
        spec = manifest["spec"]["template"]["spec"]
        assert spec["nodeSelector"] == pool.selector
        assert len(spec["tolerations"]) == len(pool.tolerations)
        assert spec["initContainers"][0]["args"] == [pool.local_ssd_path, str(layout.USER)]
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert not layout.POD_LABELS.items() <= labels.items(), "the fences would let it in"


@pytest.mark.parametrize("platform", ["aws-prod", "azure-prod", "gcp-prod"])
def test_pods_wait_for_a_mount_and_only_for_one(platform: str):
    sources = {
        tier: volume["hostPath"]
        for tier, spec in pods(rendered(PROFILE, platform)).items()
        for volume in spec["volumes"]
        if volume["name"] == "weights"
    }
    pools = platforms()[platform].pools

    assert sources.keys() == {"vision", "decoder"}
    for tier, source in sources.items():
        pool: Any = pools[tier]  # type: ignore[index]
        assert source["path"] == f"{pool.local_ssd_path}/weights"
        assert source["type"] == ("Directory" if pool.raw_disks else "DirectoryOrCreate")


def test_only_the_join_is_privileged():
    sets = of_kind(rendered(PROFILE, "azure-prod"), "DaemonSet")

    assert sets
    for manifest in sets:
        spec = manifest["spec"]["template"]["spec"]
        assert [each["name"] for each in spec["initContainers"]] == ["join"]
        (stays,) = spec["containers"]
        assert "privileged" not in stays["securityContext"]
        assert stays["securityContext"]["runAsNonRoot"]


def test_raw_disks_have_to_be_below_what_the_container_shares():
    values = described("azure-prod")
    values["pools"]["decoder"]["local_ssd_path"] = "/var/lib/pixtral"

    with pytest.raises(ValueError, match="below /mnt"):
        Platform.model_validate(values)
