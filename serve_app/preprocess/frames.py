"""Which frames of an animation, or pages of a TIFF, are shown. Standard library only."""

from __future__ import annotations

from serve_app.errors import InvalidRequest
from serve_app.preprocess.wish import Frames


def frame_indices(frames: Frames, total: int, param: str) -> tuple[int, ...]:
    """Indices into the file's ``total`` frames, in the order in which they are shown.

    ``count`` frames lie evenly by index, the first and the last among them; a file that has no more
    shows them all. Their durations do not count.

    >>> frame_indices(Frames(count=4), 10, "")
    (0, 3, 6, 9)

    Raises:
        InvalidRequest: there is no such frame.
    """
    if frames.count is not None:
        return _even(min(frames.count, total), total)
    for index in frames.indices:
        if index >= total:
            raise InvalidRequest(
                f"frame {index} is asked for, and the last of the picture's {total} is {total - 1}",
                param=param,
                code="no_such_frame",
            )
    return frames.indices or (0,)


def _even(count: int, total: int) -> tuple[int, ...]:
    if count == 1:
        return (0,)
    gaps = count - 1
    # Half a gap rounds up, whatever the machine makes of fractions.
    return tuple((index * (total - 1) * 2 + gaps) // (2 * gaps) for index in range(count))
