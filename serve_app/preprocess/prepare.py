"""From a conversation and its encoded pictures to token ids and patches. Knows no Ray."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serve_app.messages import PictureSource, PrepareRequest, Shown
from serve_app.preparing import Preprocess
from serve_app.preprocess.decode import decoded_frames, look_at_frames
from serve_app.preprocess.documents import drawn_pages, look_at_pages
from serve_app.preprocess.layout import check_count, lay_out
from serve_app.preprocess.sizing import PictureLimits
from serve_app.preprocess.wish import Pages, Sight, Wish
from shards.pixels import content_hash, patches
from shards.request import Picture
from shards.tokenizer import Tokenizer

Patches = NDArray[np.float32]
Cut = tuple[Picture, Patches]


@dataclass(frozen=True, slots=True)
class PreparedPrompt:
    """What the engine needs. ``len(token_ids) == text_tokens + image_tokens``.

    ``pictures``, in the order in which the prompt shows them: each with its patches, float32
    [grid.patches, channels·patch²]; ``shown`` says what became of each. A picture shown twice is
    there twice, with one array.
    """

    token_ids: tuple[int, ...]
    text_tokens: int
    image_tokens: int
    pictures: tuple[Cut, ...]
    shown: tuple[Shown, ...]


class Preparer:
    """May be shared by threads."""

    def __init__(self, tokenizer: Tokenizer, config: Preprocess) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._limits = PictureLimits(
            tokenizer.max_side, config.max_picture_tokens, config.max_request_picture_tokens
        )

    def prepare(self, request: PrepareRequest) -> PreparedPrompt:
        """Check, look, lay out, and only then decode.

        Raises:
            InvalidRequest: too many pictures or tokens, or a picture that cannot be read (its place
                is named).
            RequestError: the conversation is not one that the model can be told.
        """
        count = len(request.pictures)
        check_count(count, request.max_pictures)
        self._tokenizer.check(request.conversation, count)
        sights = [self._look(source) for source in request.pictures]
        layout = lay_out(request, sights, self._tokenizer, self._limits)
        cut = self._cut(request.pictures, sights, layout.max_sides)
        return PreparedPrompt(
            token_ids=layout.prompt.token_ids,
            text_tokens=layout.prompt.text_tokens,
            image_tokens=layout.prompt.image_tokens,
            pictures=tuple(cut[place.source][place.index] for place in layout.places),
            shown=layout.shown,
        )

    def _look(self, source: PictureSource) -> Sight:
        if isinstance(source.wish, Pages):
            most = self._config.documents.max_pages
            return look_at_pages(source.data, source.wish, most, source.param)
        return look_at_frames(source.data, source.wish, self._config.rules, source.param)

    def _pictures(
        self, source: PictureSource, sight: Sight, sides: Sequence[int]
    ) -> Iterator[Image.Image]:
        if isinstance(source.wish, Pages):
            return drawn_pages(source.data, sight, sides, source.param)
        return decoded_frames(source.data, sight, self._config.rules, source.param)

    def _cut(
        self,
        sources: Sequence[PictureSource],
        sights: Sequence[Sight],
        max_sides: Sequence[tuple[int, ...]],
    ) -> list[tuple[Cut, ...]]:
        """Equal files once; pixels are let go as soon as their patches are cut."""
        once: dict[tuple[bytes, Wish, tuple[int, ...]], tuple[Cut, ...]] = {}
        cut = []
        for source, sight, sides in zip(sources, sights, max_sides, strict=True):
            key = source.data, source.wish, sides
            if key not in once:
                once[key] = tuple(map(_cut_one, self._pictures(source, sight, sides), sides))
            cut.append(once[key])
        return cut


def _cut_one(image: Image.Image, max_side: int) -> Cut:
    grid, values = patches(image, max_side)
    return Picture(grid, content_hash(grid, values)), values
