"""Which frames of an animation are shown."""

from __future__ import annotations

from itertools import pairwise

import pytest

from serve_app.errors import InvalidRequest
from serve_app.preprocess.frames import frame_indices
from serve_app.preprocess.wish import FIRST_FRAME, Frames


def shown(frames: Frames, total: int) -> tuple[int, ...]:
    return frame_indices(frames, total, "image_url")


def test_the_first_unless_others_are_asked_for():
    assert shown(FIRST_FRAME, 1) == shown(FIRST_FRAME, 9) == (0,)


def test_so_many_lie_evenly_the_first_and_the_last_among_them():
    assert shown(Frames(count=2), 10) == (0, 9)
    assert shown(Frames(count=4), 10) == (0, 3, 6, 9)
    assert shown(Frames(count=3), 10) == (0, 5, 9)
    assert shown(Frames(count=1), 10) == (0,)


def test_a_file_that_has_no_more_shows_them_all():
    assert shown(Frames(count=8), 3) == (0, 1, 2)
    assert shown(Frames(count=8), 1) == (0,)


def test_gaps_differ_by_one_at_most():
    for total in range(2, 60):
        for count in range(2, total + 1):
            chosen = shown(Frames(count=count), total)
            assert (len(chosen), chosen[0], chosen[-1]) == (count, 0, total - 1)
            gaps = {after - before for before, after in pairwise(chosen)}
            assert max(gaps) - min(gaps) <= 1
            assert min(gaps) >= 1


def test_named_frames_come_as_they_are_named():
    assert shown(Frames(indices=(4, 0, 4)), 5) == (4, 0, 4)


def test_a_frame_that_is_not_there_is_refused_with_the_numbers():
    with pytest.raises(InvalidRequest) as caught:
        shown(Frames(indices=(0, 5)), 5)
    assert (caught.value.param, caught.value.code) == ("image_url", "no_such_frame")
    assert caught.value.message == "frame 5 is asked for, and the last of the picture's 5 is 4"
