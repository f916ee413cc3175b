"""What is noted stays noted: through kill -9, torn ends, damaged bytes and full disks."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.decoder.journal import JournalError, JournalWriter, decode, encode
from serve_app.decoder.journal_reader import read_journals
from shards.errors import GroupError
from shards.tally import Tally

NOW = 1_000_000.0

tallies = st.builds(
    Tally,
    request_id=st.text(min_size=1, max_size=40),
    attempt=st.integers(1, 2**16 - 1),
    choice=st.integers(0, 2**16 - 1),
    text=st.integers(0, 2**32 - 1),
    image=st.integers(0, 2**32 - 1),
    cached_text=st.integers(0, 2**32 - 1),
    cached_image=st.integers(0, 2**32 - 1),
    output=st.integers(0, 2**32 - 1),
    rejected_draft=st.integers(0, 2**32 - 1),
)


@given(st.lists(st.lists(tallies, min_size=1, max_size=4), max_size=4))
def test_what_is_written_is_read(steps):
    data = b"".join(encode(step) for step in steps)
    decoded = decode(data)
    assert decoded.tallies == tuple(tally for step in steps for tally in step)
    assert (decoded.length, decoded.lost, decoded.rest_is_torn) == (len(data), 0, True)


def test_a_record_torn_at_any_byte_is_left_alone_and_those_before_it_are_read():
    first, second = encode([Tally("a", 1, 0, output=1)]), encode([Tally("a", 1, 0, output=2)])
    for torn in range(len(second)):
        decoded = decode(first + second[:torn])
        assert decoded.tallies == (Tally("a", 1, 0, output=1),)
        assert (decoded.length, decoded.lost, decoded.rest_is_torn) == (len(first), 0, True)


def test_a_flipped_bit_anywhere_in_a_record_loses_that_record_and_is_told():
    records = [encode([Tally(f"request-{n}", 1, 0, output=n)]) for n in range(3)]
    for bit in range(8 * len(records[1])):
        damaged = bytearray(records[1])
        damaged[bit // 8] ^= 1 << bit % 8
        decoded = decode(records[0] + damaged + records[2])
        assert [tally.output for tally in decoded.tallies] == [0, 2], bit
        assert decoded.lost == len(records[1])


def test_bytes_that_a_power_failure_left_empty_are_no_records():
    decoded = decode(encode([Tally("a", 1, 0)]) + bytes(4096))
    assert len(decoded.tallies) == 1
    assert not decoded.rest_is_torn


_WRITER = """
import sys
from pathlib import Path
from serve_app.decoder.journal import JournalWriter
from shards.tally import Tally

writer = JournalWriter(Path(sys.argv[1]), "group", segment_bytes=4096)
for count in range(1, 10**9):
    writer.append([Tally("a", 1, 0, text=7, output=count), Tally("b", 2, 1, output=count)])
    sys.stdout.buffer.write(count.to_bytes(8, "big"))
    sys.stdout.buffer.flush()
"""


@pytest.mark.parametrize("marks", [1, 40, 700])
def test_kill_minus_9_loses_no_record_of_what_was_delivered(tmp_path, marks):
    process = subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    delivered = 0
    for _ in range(marks):
        delivered = int.from_bytes(process.stdout.read(8), "big")
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read()
    process.wait()
    whole = len(rest) - len(rest) % 8
    if whole:
        delivered = int.from_bytes(rest[whole - 8 : whole], "big")
    noted: dict[str, int] = {}
    bookmark = 0
    while pages := read_journals(tmp_path, {"group": bookmark}, NOW):
        noted |= {tally.request_id: tally.output for tally in pages[0].tallies}
        bookmark = pages[0].offset
        assert pages[0].lost == 0
    assert delivered >= marks
    assert noted["a"] == noted["b"] >= delivered


def test_a_group_that_cannot_write_stops_rather_than_go_on_unnoted(tmp_path, monkeypatch):
    writer = JournalWriter(tmp_path, "group")
    writer.append([Tally("a", 1, 0, output=1)])
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:9]))
    with pytest.raises(JournalError, match=r"journal of group group in .*only a part"):
        writer.append([Tally("a", 1, 0, output=2)])
    monkeypatch.undo()
    # The disk has room again, but a record after half a record would hide behind it.
    with pytest.raises(JournalError):
        writer.append([Tally("a", 1, 0, output=3)])
    (page,) = read_journals(tmp_path, {}, NOW)
    assert page.tallies == (Tally("a", 1, 0, output=1),)
    assert page.lost == 0


@pytest.mark.parametrize("error", [28, 5], ids=["full", "broken"])
def test_a_write_that_fails_is_the_groups_failure(tmp_path, monkeypatch, error):
    writer = JournalWriter(tmp_path, "group")

    def fails(file: int, data: bytes) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "write", fails)
    with pytest.raises(GroupError, match=os.strerror(error)) as failure:
        writer.append([Tally("a", 1, 0)])
    assert str(pickle.loads(pickle.dumps(failure.value))) == str(failure.value)


def test_a_disk_without_room_for_a_segment_is_refused_before_any_work(tmp_path):
    with pytest.raises(JournalError, match="are free"):
        JournalWriter(tmp_path, "group", segment_bytes=2**62)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="Not a directory"):
        JournalWriter(tmp_path / "file" / "journals", "group")


def test_two_writers_never_share_a_journal(tmp_path):
    JournalWriter(tmp_path, "group")
    with pytest.raises(JournalError, match="File exists"):
        JournalWriter(tmp_path, "group")


def test_a_journal_tells_nobody_but_its_owner(tmp_path: Path):
    JournalWriter(tmp_path / "journals", "group").append([Tally("a", 1, 0)])
    (file,) = (tmp_path / "journals").iterdir()
    assert file.stat().st_mode & 0o077 == 0
    assert file.parent.stat().st_mode & 0o077 == 0
