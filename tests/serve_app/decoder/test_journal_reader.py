"""Reading on from bookmarks, over segments, beside living writers and after dead ones."""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path
from zlib import crc32

import pytest

from serve_app.decoder.journal import JournalWriter, encode
from serve_app.decoder.journal_reader import KEEP_S, read_journals
from serve_app.messages import JournalPage
from shards.tally import Tally

# Files get the real time when they are written to; seen from here they are new, and old.
NOW, LATER = 0.0, 4e9
RECORD = len(encode([Tally("a", 1, 0, output=1)]))


def note(writer: JournalWriter, *outputs: int) -> None:
    for output in outputs:
        writer.append([Tally("a", 1, 0, output=output)])


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def read(folder: Path, bookmark: int = 0, now_s: float = NOW) -> JournalPage:
    (page,) = read_journals(folder, {"group": bookmark}, now_s)
    return page


def read_all(folder: Path, bookmark: int = 0) -> list[JournalPage]:
    pages = [read(folder, bookmark)]
    while pages[-1].more:
        pages.append(read(folder, pages[-1].offset))
    return pages


@pytest.fixture
def writer(tmp_path: Path) -> JournalWriter:
    """Three records a segment."""
    return JournalWriter(tmp_path, "group", segment_bytes=3 * RECORD)


def test_no_folder_and_no_news_are_no_pages(tmp_path, writer):
    assert read_journals(tmp_path / "absent", {}, NOW) == ()
    assert read_journals(tmp_path, {}, NOW) == ()
    note(writer, 1)
    assert read_journals(tmp_path, {"group": RECORD}, NOW) == ()


def test_a_page_holds_the_latest_of_each_choice_beyond_the_bookmark(tmp_path, writer):
    writer.append([Tally("a", 1, 0, output=1), Tally("a", 1, 1, output=1)])
    first = read(tmp_path)
    writer.append([Tally("a", 1, 0, output=2)])
    assert set(first.tallies) == {Tally("a", 1, 0, output=1), Tally("a", 1, 1, output=1)}
    assert read(tmp_path, first.offset).tallies == (Tally("a", 1, 0, output=2),)
    assert set(read(tmp_path).tallies) == {Tally("a", 1, 0, output=2), Tally("a", 1, 1, output=1)}


def test_every_group_of_the_node_is_read_dead_ones_too(tmp_path):
    for group in ("one", "two"):
        writer = JournalWriter(tmp_path, group)
        note(writer, 1)
    writer.close()
    pages = read_journals(tmp_path, {}, NOW)
    assert {page.group: page.offset for page in pages} == {"one": RECORD, "two": RECORD}


def test_pages_end_with_their_segment_and_go_on_from_any_bookmark(tmp_path, writer):
    note(writer, *range(1, 9))
    assert len(files(tmp_path)) == 3
    assert [page.offset for page in read_all(tmp_path)] == [3 * RECORD, 6 * RECORD, 8 * RECORD]
    for read_before in range(8):
        pages = read_all(tmp_path, read_before * RECORD)
        assert pages[-1].tallies == (Tally("a", 1, 0, output=8),)
        assert {page.lost for page in pages} == {0}


def test_a_record_being_written_is_waited_for(tmp_path, writer):
    note(writer, 1)
    (file,) = files(tmp_path)
    record = encode([Tally("a", 1, 0, output=2)])
    for torn in range(1, len(record)):
        file.write_bytes(record + record[:torn])
        assert read(tmp_path).offset == RECORD
    file.write_bytes(record + record)
    assert read(tmp_path).offset == 2 * RECORD


def test_a_record_that_a_dead_writer_tore_is_passed_over_once_and_is_no_loss(tmp_path, writer):
    note(writer, 1)
    writer.close()
    (file,) = files(tmp_path)
    record = encode([Tally("a", 1, 0, output=2)])
    for torn in range(1, len(record)):
        file.write_bytes(record + record[:torn])
        page = read(tmp_path)
        assert (page.offset, page.lost) == (RECORD + torn, 0)
        assert read_journals(tmp_path, {"group": page.offset}, NOW) == ()


@pytest.mark.parametrize("alive", [True, False])
def test_damage_is_told_and_hides_nothing_behind_it(tmp_path, writer, alive, caplog):
    note(writer, 1, 2, 3, 4)
    if not alive:
        writer.close()
    first, _ = files(tmp_path)
    content = bytearray(first.read_bytes())
    content[RECORD + 20] ^= 1
    first.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        pages = read_all(tmp_path)
    assert [page.lost for page in pages] == [RECORD, 0]
    assert pages[0].tallies == (Tally("a", 1, 0, output=3),)
    assert [record.message for record in caplog.records] == ["a journal is damaged"]


def test_damage_at_the_end_of_a_dead_journal_is_told(tmp_path, writer):
    note(writer, 1, 2)
    writer.close()
    (file,) = files(tmp_path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    page = read(tmp_path)
    assert (page.offset, page.lost) == (2 * RECORD, RECORD)
    assert page.tallies == (Tally("a", 1, 0, output=1),)


def test_a_segment_that_is_gone_or_cut_short_is_told(tmp_path, writer):
    note(writer, *range(1, 10))
    first, second, _ = files(tmp_path)
    os.truncate(first, 2 * RECORD)
    second.unlink()
    pages = read_all(tmp_path)
    assert [page.offset for page in pages] == [6 * RECORD, 9 * RECORD]
    assert [page.lost for page in pages] == [4 * RECORD, 0]
    first.unlink()
    (page,) = read_all(tmp_path)
    assert (page.offset, page.lost) == (9 * RECORD, 6 * RECORD)


def test_what_was_read_long_ago_is_removed_but_for_the_end_of_a_living_journal(tmp_path, writer):
    note(writer, *range(1, 9))
    assert read_journals(tmp_path, {"group": 8 * RECORD}, LATER) == ()
    assert len(files(tmp_path)) == 1
    note(writer, 9)
    assert read(tmp_path, 8 * RECORD).tallies == (Tally("a", 1, 0, output=9),)
    writer.close()
    read_journals(tmp_path, {"group": 9 * RECORD}, LATER)
    assert files(tmp_path) == []


def test_what_is_not_read_whole_or_not_old_is_kept(tmp_path, writer):
    note(writer, *range(1, 9))
    writer.close()
    written_s = files(tmp_path)[-1].stat().st_mtime
    read_journals(tmp_path, {"group": 8 * RECORD}, written_s + KEEP_S - 60)
    assert len(files(tmp_path)) == 3
    read_journals(tmp_path, {"group": 5 * RECORD}, LATER)
    assert len(files(tmp_path)) == 2
    assert read(tmp_path, 5 * RECORD).tallies == (Tally("a", 1, 0, output=6),)


def test_what_the_release_before_wrote_is_read_beside_what_is_written_now(tmp_path, writer):
    """Its counts were five: nobody guessed ahead and told."""
    note(writer, 1)
    entry = struct.pack("<BHHIIIII", 5, 2, 1, 4, 3, 2, 1, 9) + b"older"
    lengths = struct.pack("<II", len(entry), crc32(entry))
    record = lengths + struct.pack("<I", crc32(lengths)) + entry
    (tmp_path / f"dead.{0:016x}.journal").write_bytes(record + record[:7])
    pages = {page.group: page for page in read_journals(tmp_path, {}, NOW)}
    assert pages["group"].tallies == (Tally("a", 1, 0, output=1),)
    assert pages["dead"].tallies == (Tally("older", 2, 1, 4, 3, 2, 1, 9, rejected_draft=0),)
    assert (pages["dead"].offset, pages["dead"].lost) == (len(record) + 7, 0)
    writer.close()
    bookmarks = {group: page.offset for group, page in pages.items()}
    assert read_journals(tmp_path, bookmarks, LATER) == ()
    assert files(tmp_path) == []


def test_the_release_before_leaves_alone_what_is_written_now(tmp_path, writer):
    """Two releases share a node while one takes over: it looks for names like these."""
    note(writer, 1)
    assert list(tmp_path.glob(f"*.{'[0-9a-f]' * 16}.journal")) == []


def test_other_files_in_the_folder_are_left_alone(tmp_path, writer):
    (tmp_path / "notes.journal").write_text("mine")
    note(writer, 1)
    assert read(tmp_path).offset == RECORD
