"""At which size each picture of a request is seen. Pure: nothing is decoded for it.

Detail and the operator's caps do one thing, in this order: they lower the longest side that the
model's own rule scales a picture to (``shards/grid.py``).

1. ``detail: low`` lowers it to 256 pixels, which takes at most 272 tokens instead of 4,160: enough
   to tell what is in a picture, too little to read it. ``auto``, ``high`` and ``original`` do not.
2. ``picture_tokens``: to the longest at which the picture takes no more tokens.
3. ``request_tokens``: to the longest, one for all the request's pictures, at which they take no
   more together. So the largest shrink first, and small ones stay as they are.

>>> limits = PictureLimits(model_side=1024, request_tokens=600)
>>> [size.max_side for size in sized([((4000, 3000), "auto"), ((200, 100), "auto")], limits)]
[400, 200]
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from serve_app.errors import InvalidRequest
from serve_app.preprocess.wish import Detail
from shards.grid import Size, patch_grid, scaled_size

LOW_SIDE = 256
# Smaller, nothing is recognised; a picture of this side takes at most 20 tokens.
LEAST_SIDE = 64
LEAST_TOKENS = 20


class Scaling(StrEnum):
    """What made a picture smaller than it came."""

    MODEL = "model"
    DETAIL = "detail"
    PICTURE_LIMIT = "picture_limit"
    REQUEST_LIMIT = "request_limit"


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """``model_side`` in pixels is the model's; the operator's tokens are None where unlimited."""

    model_side: int
    picture_tokens: int | None = None
    request_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Sized:
    """A picture of ``size`` pixels that is scaled to ``max_side``; ``scaling`` None if it is not.

    ``max_side`` is what patches are cut under, and ``scaled`` what the tokenizer is told.
    """

    size: Size
    max_side: int
    scaling: Scaling | None

    @property
    def scaled(self) -> Size:
        return scaled_size(*self.size, self.max_side)


def sized(pictures: Sequence[tuple[Size, Detail]], limits: PictureLimits) -> tuple[Sized, ...]:
    """Each picture's largest side, by the rules above.

    Raises:
        InvalidRequest: even at 64 pixels a side they would take more tokens than a request may.
    """
    alone = [_alone(size, detail, limits) for size, detail in pictures]
    together = limits.request_tokens
    if together is None or _tokens(alone, limits.model_side) <= together:
        return tuple(alone)
    least = _tokens(alone, LEAST_SIDE)
    if least > together:
        raise InvalidRequest(
            f"{len(alone)} pictures take {least} tokens even at {LEAST_SIDE} pixels a side, and a"
            f" request's may take {together}; send fewer",
            param="messages",
            code="too_many_picture_tokens",
        )
    sides = range(LEAST_SIDE, limits.model_side + 1)
    common = LEAST_SIDE - 1 + bisect_right(sides, together, key=lambda side: _tokens(alone, side))
    return tuple(_lowered(each, common, Scaling.REQUEST_LIMIT) for each in alone)


def _alone(size: Size, detail: Detail, limits: PictureLimits) -> Sized:
    whole = Sized(size, max(size), None)
    seen = _lowered(whole, limits.model_side, Scaling.MODEL)
    if detail == "low":
        seen = _lowered(seen, LOW_SIDE, Scaling.DETAIL)
    most = limits.picture_tokens
    if most is None or patch_grid(*size, seen.max_side).tokens <= most:
        return seen
    sides = range(LEAST_SIDE, seen.max_side + 1)
    fits = LEAST_SIDE - 1 + bisect_right(sides, most, key=lambda s: patch_grid(*size, s).tokens)
    return _lowered(seen, fits, Scaling.PICTURE_LIMIT)


def _lowered(picture: Sized, max_side: int, scaling: Scaling) -> Sized:
    if picture.max_side <= max_side:
        return picture
    return Sized(picture.size, max_side, scaling)


def _tokens(pictures: Sequence[Sized], max_side: int) -> int:
    return sum(patch_grid(*each.size, min(each.max_side, max_side)).tokens for each in pictures)
