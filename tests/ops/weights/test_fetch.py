import filecmp
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from ops.weights.manifest import Entry
from ops.weights.transfer import Transfer, pieces_file
from shards.checkpoint import stored_tensors
from tests.ops.weights.bucket import BUCKET
from tests.ops.weights.conftest import TEXT, TEXT_PIECES, VISION

ROOT = Path(__file__).parent.parent.parent.parent
FILES = ["consolidated.safetensors.index.json", TEXT, VISION, "params.json", "tekken.json"]
URI = f"s3://{BUCKET}/release"


def said(result):
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result):
    """The one line of a command that fails."""
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("pixtral: ")]
    assert "Traceback" not in result.output
    return line


def assert_complete(folder, checkpoint):
    assert sorted(os.listdir(folder)) == sorted([*FILES, "manifest.json"])
    same, *different = filecmp.cmpfiles(folder, checkpoint, FILES, shallow=False)
    assert sorted(same) == sorted(FILES), different


def in_a_process(folder):
    """The command as another pod of the node runs it."""
    code = "from ops.cli import app; app()"
    words = ["weights", "fetch", URI, str(folder), "--parallel", "1"]
    return subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_from_a_folder(weights, checkpoint, tmp_path):
    dest = tmp_path / "node" / "large"
    assert "is complete: 5 files" in said(weights("fetch", f"file://{checkpoint}", dest))
    assert_complete(dest, checkpoint)
    assert sorted(os.listdir(dest.parent)) == [".large.lock", "large"]
    assert "each has the checksum" in said(weights("verify", dest))


def test_from_a_bucket_in_pieces_once(weights, bucket, checkpoint, tmp_path):
    dest = tmp_path / "node" / "large"
    fetched = json.loads(said(weights("fetch", URI, dest, "--json")))
    assert fetched["fetched_bytes"] == fetched["bytes"]
    assert_complete(dest, checkpoint)
    assert len(bucket.weight_reads) == len(set(bucket.weight_reads)) == TEXT_PIECES + 1
    again = json.loads(said(weights("fetch", URI, dest, "--json")))
    assert again["fetched_bytes"] == 0
    assert len(bucket.weight_reads) == TEXT_PIECES + 1


def test_vision_nodes_fetch_only_what_holds_vision(weights, bucket, tmp_path):
    dest = tmp_path / "vision"
    said(weights("fetch", URI, dest, "--part", "vision"))
    assert [name for name, _ in bucket.weight_reads] == [VISION]
    assert TEXT not in os.listdir(dest)
    said(weights("verify", dest))
    # The loader refuses an index that names files which are not there.
    assert list(stored_tensors(dest, "mistral")) == ["vision_encoder.ln_pre.weight"]
    assert "holds other weights" in refused(weights("fetch", URI, dest))


def test_killed_midway_nothing_is_visible_and_nothing_is_read_twice(
    weights, bucket, checkpoint, tmp_path
):
    dest = tmp_path / "node" / "large"
    bucket.hold_after = 2
    victim = in_a_process(dest)
    assert bucket.held.wait(60), victim.communicate()[0]
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=30)
    assert not dest.exists()
    assert (dest.parent / ".large.partial").is_dir()
    answered = bucket.weight_reads[:2]
    bucket.hold_after = None
    bucket.release.set()
    bucket.reads.clear()
    said(weights("fetch", URI, dest))
    assert_complete(dest, checkpoint)
    assert set(bucket.weight_reads).isdisjoint(answered)
    assert len(bucket.weight_reads) == TEXT_PIECES + 1 - len(answered)


def test_of_two_at_once_one_fetches_and_the_other_verifies(bucket, checkpoint, tmp_path):
    dest = tmp_path / "node" / "large"
    bucket.hold_after = 1
    first = in_a_process(dest)
    assert bucket.held.wait(60), first.communicate()[0]
    second = in_a_process(dest)
    line = second.stdout.readline()  # it speaks once it waits, and not before
    assert "waiting for it" in line
    assert len(bucket.weight_reads) == 2
    bucket.release.set()
    told = first.communicate(timeout=120)[0], second.communicate(timeout=120)[0]
    assert (first.returncode, second.returncode) == (0, 0), told
    assert "of which 0 MiB were fetched now" in told[1]
    assert_complete(dest, checkpoint)
    assert len(bucket.weight_reads) == TEXT_PIECES + 1


def test_a_wrong_checksum_names_the_file_and_removes_it(weights, checkpoint, tmp_path):
    with (checkpoint / TEXT).open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    dest = tmp_path / "node" / "large"
    line = refused(weights("fetch", f"file://{checkpoint}", dest))
    assert f"{TEXT} does not match its checksum" in line
    assert not dest.exists()
    kept = os.listdir(dest.parent / ".large.partial")
    assert not [name for name in kept if TEXT in name]


def test_what_rots_on_the_node_is_fetched_again(weights, checkpoint, tmp_path):
    dest = tmp_path / "node" / "large"
    said(weights("fetch", f"file://{checkpoint}", dest))
    with (dest / VISION).open("r+b") as file:
        file.seek(200)
        file.write(b"!")
    damaged = weights("verify", dest)
    assert (damaged.exit_code, damaged.stdout) == (1, f"{VISION} does not match its checksum\n")
    result = weights("fetch", f"file://{checkpoint}", dest, "--json")
    assert f"{VISION} does not match its checksum" in result.stderr
    assert json.loads(said(result))["fetched_bytes"] == (checkpoint / VISION).stat().st_size
    assert_complete(dest, checkpoint)


def test_a_quick_look_is_at_sizes_only(weights, checkpoint):
    with (checkpoint / TEXT).open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    assert "each has the size" in said(weights("verify", checkpoint, "--quick"))
    assert weights("verify", checkpoint).exit_code == 1
    os.truncate(checkpoint / VISION, 100)
    for words in (("--quick",), ()):
        assert f"{VISION} has 100 bytes instead of" in weights("verify", checkpoint, *words).stdout
    (checkpoint / VISION).unlink()
    assert f"{VISION} is missing" in weights("verify", checkpoint, "--quick").stdout


def test_what_a_try_for_other_weights_left_is_removed(weights, checkpoint, tmp_path):
    staging = tmp_path / "node" / ".large.partial"
    staging.mkdir(parents=True)
    (staging / "model-00001-of-00052.safetensors").write_bytes(b"of another release")
    dest = tmp_path / "node" / "large"
    said(weights("fetch", f"file://{checkpoint}", dest))
    assert_complete(dest, checkpoint)


def test_a_piece_whose_note_was_cut_off_is_read_again(tmp_path):
    class Bytes:
        uri = "memory"
        asked: ClassVar[list[int]] = []

        def size(self, name):
            return 12

        def read(self, name, start, length):
            self.asked.append(start)
            return memoryview(b"abcdefghijkl")[start : start + length]

    file = tmp_path / "draft"
    file.write_bytes(b"abcd????????")
    pieces_file(file, 4).write_text("0\n1")
    with ThreadPoolExecutor(1) as pool:
        transfer = Transfer(Bytes(), pool, lambda count: None, piece_bytes=4)
        transfer.run(Entry(name="draft", bytes=12, sha256="0" * 64), file)
    assert Bytes.asked == [4, 8]
    assert file.read_bytes() == b"abcdefghijkl"


def test_too_little_disk_is_told_before_anything_is_fetched(weights, bucket, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(0, 0, 2**20))
    line = refused(weights("fetch", URI, tmp_path / "large"))
    assert "has 1 MiB free and 48 MiB are still to come" in line
    assert bucket.weight_reads == []


def test_a_pinned_manifest(weights, checkpoint, tmp_path):
    made = json.loads(said(weights("manifest", checkpoint, "--json")))
    uri, dest = f"file://{checkpoint}", tmp_path / "large"
    line = refused(weights("fetch", uri, dest, "--manifest-sha256", "0" * 64))
    assert f"has SHA-256 {made['manifest_sha256']}" in line
    said(weights("fetch", uri, dest, "--manifest-sha256", made["manifest_sha256"]))


def test_a_source_that_differs_from_its_manifest(weights, bucket, checkpoint, tmp_path):
    (checkpoint / VISION).write_bytes(b"short")
    line = refused(weights("fetch", URI, tmp_path / "large"))
    assert f"{VISION} has 5 bytes" in line
    (checkpoint / VISION).unlink()
    assert refused(weights("fetch", URI, tmp_path / "large")).endswith(f"no {URI}/{VISION}")
    assert bucket.weight_reads == []
    (checkpoint / "manifest.json").unlink()
    assert "`pixtral weights manifest DIR` makes it" in refused(
        weights("fetch", URI, tmp_path / "large")
    )


@pytest.mark.parametrize(
    "uri", ["http://models/x", "gs:///x", "az://account", "s3://me:key@bucket/x", "file://x/y", "x"]
)
def test_addresses_that_are_none(weights, tmp_path, uri):
    assert "is none of gs://" in refused(weights("fetch", uri, tmp_path / "large"))


def test_the_destination_may_be_an_empty_folder(weights, checkpoint, tmp_path):
    (tmp_path / "large").mkdir()
    said(weights("fetch", f"file://{checkpoint}", tmp_path / "large"))
    assert_complete(tmp_path / "large", checkpoint)
