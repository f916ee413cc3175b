"""Reads the journals of a node's groups, dead ones too, and removes what was read long ago.

Any process of the node may do it at any time, several at once; see journal.py for the files.
"""

from __future__ import annotations

import fcntl
import logging
import os
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.decoder.journal import FORMATS, decode
from serve_app.messages import JournalPage

# A ledger restored from a backup of yesterday still finds what it misses.
KEEP_S = 86_400.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Segment:
    """One file of a group's journal, which begins at byte ``start`` of it."""

    start: int
    path: Path
    suffix: str


def read_journals(
    folder: Path, bookmarks: Mapping[str, int], now_s: float
) -> tuple[JournalPage, ...]:
    """For each group of whose journal there is more than its bookmark, the rest of one segment.

    Segments that lie wholly before the bookmarks, which therefore must be safely stored, are
    removed ``KEEP_S`` after they were last written to.

    Args:
        bookmarks: group → offset in bytes; a group that is not named is read from its start.
        now_s: seconds since the epoch.
    """
    pages = []
    for group, segments in _by_group(folder).items():
        bookmark = bookmarks.get(group, 0)
        try:
            page = _read(group, segments, bookmark)
            _remove_old(segments, bookmark, now_s - KEEP_S)
        except FileNotFoundError:
            # Another reader removed it meanwhile, as read.
            continue
        if page.lost:
            _logger.error("a journal is damaged", extra={"group": group, "bytes": page.lost})
        if page.offset > bookmark:
            pages.append(page)
    return tuple(pages)


def _by_group(folder: Path) -> dict[str, list[Segment]]:
    """Each group's segments, in order."""
    found: dict[str, list[Segment]] = {}
    for suffix in FORMATS:
        for path in sorted(folder.glob(f"*.{'[0-9a-f]' * 16}{suffix}")):
            group, _, start = path.name.removesuffix(suffix).rpartition(".")
            found.setdefault(group, []).append(Segment(int(start, 16), path, suffix))
    return found


def _read(group: str, segments: Sequence[Segment], bookmark: int) -> JournalPage:
    """What follows the bookmark, to the end of the segment that it lies in."""
    index = max(0, bisect_right(segments, bookmark, key=lambda segment: segment.start) - 1)
    segment, following = segments[index], segments[index + 1 :]
    begin = max(bookmark, segment.start)
    with segment.path.open("rb") as file:
        # Asked first: what a dead writer left is complete, or never will be.
        final = bool(following) or not _has_writer(file.fileno())
        file.seek(begin - segment.start)
        data = file.read()
    decoded = decode(data, segment.suffix)
    end, lost = begin + decoded.length, begin - bookmark + decoded.lost
    if following:
        # The writer went on only after a whole record.
        lost += following[0].start - end
        end = following[0].start
    elif final:
        lost += 0 if decoded.rest_is_torn else len(data) - decoded.length
        end = begin + len(data)
    # Of a choice's cumulative tallies the latest says all.
    latest = {(tally.request_id, tally.attempt, tally.choice): tally for tally in decoded.tallies}
    return JournalPage(group, end, tuple(latest.values()), more=bool(following), lost=lost)


def _has_writer(file: int) -> bool:
    """Whether the process that writes this segment lives and has not gone on to the next."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _remove_old(segments: Sequence[Segment], bookmark: int, before_s: float) -> None:
    for segment in segments:
        with segment.path.open("rb") as file:
            status = os.fstat(file.fileno())
            read = segment.start + status.st_size <= bookmark
            if not read or status.st_mtime >= before_s or _has_writer(file.fileno()):
                return
        segment.path.unlink()
